"""Counts what is in products: events of an mDST, entries of histograms, bytes of event dumps. Opens the files.

ROOT files are read with uproot, imported only when one is counted: a site without ROOT products does not need it.
"""

from pathlib import Path

from prodsys_core.ports import Broken, NotThere, Unavailable

TREES = ("TTree", "ROOT::RNTuple")
HISTOGRAMS = ("TH1", "TH2", "TH3", "TProfile")


def count_units(path: Path, unit: str) -> int | NotThere | Unavailable | Broken:
    """How many of the product's unit (`events`, `histogram entries`, `bytes`) the file holds."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return NotThere()
    except OSError as error:
        return Unavailable(f"{path}: {error.strerror}")
    if unit == "bytes":
        return size
    try:
        return _count_root(path, size, unit)
    except ImportError as error:
        return Unavailable(f"{path.name}: uproot is needed to read ROOT files: {error}")
    except Exception as error:  # a damaged file raises almost anything inside the reader
        return Broken(f"{path.name}: not a readable ROOT file: {type(error).__name__}: {error}"[:300])


def _count_root(path: Path, size: int, unit: str) -> int:
    """Entries of the file's one tree (TTree, or RNTuple as newer ROOT and uproot write it), or the sum of the entries
    of all histograms."""
    import uproot

    with uproot.open(path) as file:
        end = file.file.fEND
        if end > size:  # counts stand in the header, too, and survive a cut
            raise ValueError(f"{size} bytes, its header says {end}")
        if unit == "events":
            kinds = file.classnames(recursive=False)
            names = {name.split(";")[0] for name, kind in kinds.items() if kind in TREES}
            if len(names) != 1:
                raise ValueError(f"{len(names)} trees, expected one")
            return int(file[names.pop()].num_entries)
        kinds = file.classnames(recursive=True)
        names = {name.split(";")[0] for name, kind in kinds.items() if kind.startswith(HISTOGRAMS)}
        if not names:
            raise ValueError("no histogram")
        return sum(round(float(file[name].member("fEntries"))) for name in sorted(names))
