"""Figures that are asked for, and how each is measured by the shipped commands: `python -m bench --help`."""
