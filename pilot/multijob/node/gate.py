"""The first lines of a batch job: who owns round k of this bundle? (DESIGN section 3; docs/architecture/files.md)

`gate_steps` decides, as a generator of file operations. One atomic link(2) makes exactly one owner of a round for
ever. Whoever is not sure that it owns the round launches nothing: the pilot finds that out and goes on.
"""

from __future__ import annotations

import json
from typing import Any, Dict, NamedTuple, Optional

from pilot.multijob.node.files import (
    CountLinks,
    Exists,
    Link,
    Names,
    Pause,
    Put,
    PutNew,
    Read,
    Steps,
    SyncDirectory,
    Unlink,
)

# A claim or door that cannot be read is looked at again so often: a write of another client is seen late.
LOOKS = 5
LOOK_AGAIN_S = 2.0


class Start(NamedTuple):
    """Who starts: one start of one batch job. `nonce` is drawn by each start and never part of the script."""

    batch_id: str
    host: str
    pid: int
    nonce: str
    utc: str


class Outcome(NamedTuple):
    """What the gate decided. `launch`: it owns the round and has said so durably."""

    launch: bool
    reason: str


def gate_steps(directory: str, number: int, start: Start, fencing: str, visible_s: float) -> Steps[Outcome]:
    """Make claim(k), read the door, write `launched`. `fencing` is "link" or "weak" (mark, wait, look)."""
    try:
        if fencing == "weak":
            owner = yield from _mark(directory, number, start, visible_s)
        else:
            owner = yield from _claim(directory, number, start)
        if owner is not None:
            yield from _note(f"{directory}/again.{number}.{start.nonce}", start)
            return Outcome(False, owner)
        if fencing != "weak":
            refused = yield from _door(directory, number)
            if refused is not None:
                yield from _note(f"{directory}/turned-away.{number}", start)
                return Outcome(False, refused)
        yield from _note(f"{directory}/launched.{number}", start)
        return Outcome(True, f"round {number} is ours")
    except OSError as error:
        return Outcome(False, f"round {number} not claimed for sure: {error}")


def render_claim(number: int, start: Start) -> str:
    """Text of claim.<k> and of a mark."""
    return _line(
        {
            "who": "gate",
            "round": number,
            "batch_id": start.batch_id,
            "host": start.host,
            "pid": start.pid,
            "nonce": start.nonce,
            "utc": start.utc,
        }
    )


def _claim(directory: str, number: int, start: Start) -> Steps[Optional[str]]:
    """None if this start owns the round, else who does (or why that is not known)."""
    claim, own = f"{directory}/claim.{number}", f"{directory}/claim.{number}.{start.nonce}"
    yield PutNew(own, render_claim(number, start))
    try:
        yield Link(own, claim)
    except FileExistsError:
        pass
    # Neither a success nor a failure decides by itself (a reply may be lost, a request repeated by the client):
    # the own file with two links does, and where attributes are seen late, the nonce in the claim.
    if (yield CountLinks(own)) == 2:
        owner = None
    else:
        owner = yield from _owner(claim, start.nonce)
    if owner is None:
        yield SyncDirectory(directory)
    try:
        yield Unlink(own)
    except OSError:
        pass  # decided is decided; nobody reads it
    return owner


def _owner(claim: str, nonce: str) -> Steps[Optional[str]]:
    """None if the claim carries the own nonce; unreadable after all looks counts as another's."""
    for look in range(LOOKS):
        if look:
            yield Pause(LOOK_AGAIN_S)
        try:
            found = parse_object((yield Read(claim)))
        except OSError:
            continue
        if found is not None and isinstance(found.get("nonce"), str):
            if found["nonce"] == nonce:
                return None
            return f"{claim} belongs to {found.get('who')} {found.get('batch_id')}"
    return f"{claim} cannot be read"


def _mark(directory: str, number: int, start: Start, visible_s: float) -> Steps[Optional[str]]:
    """Mark, wait, look: for filesystems where link(2) is not exclusive between hosts. Both may lose."""
    mark = f"mark.{number}.{start.nonce}"
    yield PutNew(f"{directory}/{mark}", render_claim(number, start))
    yield SyncDirectory(directory)
    yield Pause(visible_s)
    for name in (yield Names(directory)):
        if name.startswith(f"mark.{number}.") and name != mark:
            return f"{name} is there too"
    return None


def _door(directory: str, number: int) -> Steps[Optional[str]]:
    """None if round `number` may start, else why not. No door yet: open."""
    door = f"{directory}/door"
    for look in range(LOOKS):
        if look:
            yield Pause(LOOK_AGAIN_S)
        try:
            if not (yield Exists(door)):
                return None
            found = parse_object((yield Read(door)))
        except OSError:
            continue
        if found is not None and type(found.get("round")) is int:
            return f"the door stands at round {found['round']}" if found["round"] > number else None
    return f"{door} cannot be read"


def _note(path: str, start: Start) -> Steps[None]:
    text = _line({"batch_id": start.batch_id, "host": start.host, "pid": start.pid, "utc": start.utc})
    yield Put(path, text, f"{path}.{start.nonce}.tmp")


def parse_object(text: str) -> Optional[Dict[str, Any]]:
    """The JSON object of a file, None for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _line(body: Dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True) + "\n"
