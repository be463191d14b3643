"""The virtual world: the real core, gate and job steps on a virtual clock, in one process; only ports are replaced."""
