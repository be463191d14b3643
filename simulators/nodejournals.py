"""Node journals as they stand below `bundles`, loose or in a pack: for whoever checks what a run of the product did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pilot.multijob.node.files import run_steps
from pilot.multijob.operations import perform
from pilot.multijob.pack import JOURNAL, read_packs


def read_journals(bundles: Path) -> Iterator[tuple[str, str, bytes]]:
    """(bundle id, name of the journal, its content), sorted. The daemon does not run."""
    for directory in sorted(path for path in bundles.glob("*") if path.is_dir()):
        names = sorted(path.name for path in directory.iterdir())
        found = dict(run_steps(read_packs(str(directory), names), perform).members)
        found.update({name: (directory / name).read_bytes() for name in names if JOURNAL.fullmatch(name)})
        for name in sorted(filter(JOURNAL.fullmatch, found)):
            yield directory.name, name, found[name]
