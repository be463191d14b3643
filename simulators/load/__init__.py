"""`simsite load`: the real daemon, over the wire, with nodes that are pretended and journals that are real."""
