"""`simsite up` and what is said to it while it runs."""
