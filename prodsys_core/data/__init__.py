"""Data files of prodsys: codes, statuses, products, chains of work. Read by `tables`."""
