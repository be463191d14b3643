"""Calibration database of a compute node.

`plan` (pure), `prctl`, `query`, `unpack` and `server` travel to the node; the other modules are for the edge.
"""
