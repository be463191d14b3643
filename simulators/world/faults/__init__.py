"""Faults that a seed draws: what each kind is, how it is drawn, and what of the world it bends while it lasts."""
