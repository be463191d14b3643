"""Production system: tasks, jobs, submission to PanDA, merging, cross-check, archive.

Django at the rim: what is decided is pure in `plan`, `lifecycle`, `catalogue`, `naming` and `verdicts` over plain
values; `selectors` read, `services` load, call and store.
"""
