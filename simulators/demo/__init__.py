"""The whole chain on this machine, from raw files to the archive, on real parts; and what its evidence says."""
