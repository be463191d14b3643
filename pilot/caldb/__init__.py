"""Calibration database of a compute node.

`plan` (pure), `query`, `unpack` and `server` travel to the node; `snapshot` and `cli` are for the edge.
"""
