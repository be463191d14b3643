"""Services: they load, call and store. What they decide with is pure (`plan`, `lifecycle`, `verdicts`)."""
