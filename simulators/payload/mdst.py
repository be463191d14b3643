"""mDST files: a ROOT tree `mDST`, one entry per event of the raw file, with or without tracks.

run, chunk, event   of the raw file; event counts from 0
n_tracks            and per track track_x, track_y (mm at z = 0), track_tx, track_ty (slopes), track_time (ns),
                    track_chi2, track_ndf
pull                residual over resolution of the event's best track in each plane (NaN: no hit used or no track)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators.payload.raw import RawHeader
from simulators.payload.rootfiles import COMPLETE, RootFileError, check_complete, reading

if TYPE_CHECKING:
    from simulators.payload.fit import Tracks

TREE = "mDST"
TRACK_FIELDS = ("x", "y", "tx", "ty", "time", "chi2", "ndf")
EVENT_FIELDS = ("run", "chunk", "event")
COUNTER = "n_tracks"

# name -> array with one item per event: run, chunk, event, pull (events x planes) and track (jagged records)
Columns = Mapping[str, Any]


def count_entries(path: Path | str) -> int:
    """Number of events in an mDST. Raises RootFileError when it is not a complete one, OSError when it is not there."""
    with reading(path) as opened:
        entries = int(opened[TREE].num_entries)
        check_complete(opened, path, entries)
        return entries


def columns_of(header: RawHeader, tracks: Tracks) -> Columns:
    """The columns of a chunk's mDST from its tracks."""
    import awkward as ak
    import numpy as np

    counts = np.bincount(tracks.event, minlength=header.events)
    best = _best_track(tracks, header.events)
    pull = np.full((header.events, len(header.planes)), np.nan, dtype="f4")
    pull[best >= 0] = tracks.pull[best[best >= 0]]
    flat = {name: np.asarray(getattr(tracks, name), dtype="f4") for name in TRACK_FIELDS if name != "ndf"}
    flat["ndf"] = np.asarray(tracks.ndf, dtype="i4")
    return {
        "run": np.full(header.events, header.run, dtype="u4"),
        "chunk": np.full(header.events, header.chunk, dtype="u4"),
        "event": np.arange(header.events, dtype="u4"),
        "pull": pull,
        "track": ak.zip({name: ak.unflatten(values, counts) for name, values in flat.items()}),
    }


def write_mdst(path: Path, columns: Columns) -> None:
    """Write and close an mDST at `path` (the caller gives a temp name and renames). Raises OSError."""
    import uproot

    events = len(columns["event"])
    types: dict[str, Any] = dict.fromkeys(EVENT_FIELDS, "uint32")
    types["pull"] = ("f4", columns["pull"].shape[1:])
    types["track"] = columns["track"].type.content
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as opened:
        tree = opened.mktree(TREE, types, counter_name=lambda _: COUNTER)
        tree.extend(dict(columns))
        opened[COMPLETE] = str(events)


def read_mdst(path: Path | str) -> Columns:
    """All of an mDST, every basket read. Raises RootFileError when it is not a complete one."""
    import awkward as ak

    with reading(path) as opened:
        tree = opened[TREE]
        plain = tree.arrays([*EVENT_FIELDS, "pull"], library="np")
        track = tree.arrays([f"track_{name}" for name in TRACK_FIELDS], library="ak")
        columns = {**plain, "track": ak.zip({name: track[f"track_{name}"] for name in TRACK_FIELDS})}
        lengths = {name: len(values) for name, values in columns.items()}
        if set(lengths.values()) != {int(tree.num_entries)}:
            raise RootFileError(f"{path}: {lengths} values read, expected {tree.num_entries} each")
        check_complete(opened, path, int(tree.num_entries))
        return columns


def join_columns(parts: Sequence[Columns]) -> Columns:
    """One after the other.

    Raises ValueError when they were measured with different planes, or when an event is there twice: two attempts of
    one chunk in a list would double it.
    """
    import awkward as ak
    import numpy as np

    planes = {part["pull"].shape[1:] for part in parts}
    if len(planes) != 1:
        raise ValueError(f"different numbers of planes: {sorted(planes)}")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in (*EVENT_FIELDS, "pull")}
    names = np.rec.fromarrays([joined[name] for name in EVENT_FIELDS])
    found, times = np.unique(names, return_counts=True)
    if (times > 1).any():
        run, chunk, event = found[times > 1][0].tolist()
        raise ValueError(
            f"{(times > 1).sum()} events are there twice: run {run}, chunk {chunk}, event {event} first"
        )
    return joined | {"track": ak.concatenate([part["track"] for part in parts])}


def slice_columns(columns: Columns, first: int, last: int) -> Columns:
    """Events first <= i < last."""
    return {name: values[first:last] for name, values in columns.items()}


def _best_track(tracks: Tracks, events: int) -> Any:
    """Index of the track with the smallest chi2 per degree of freedom of each event, -1 without one."""
    import numpy as np

    best = np.full(events, -1)
    order = np.argsort(-tracks.chi2 / tracks.ndf, kind="stable")
    best[tracks.event[order]] = order
    return best
