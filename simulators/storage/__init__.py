"""Stand-in for a tape system behind a drop box: slow, with receipts, and faults on demand."""
