"""Packs: the small files of a bundle that is over, as one file in its directory (docs/architecture/files.md section 1).

Node journals, announcements of gates and what batch system and launchers printed are packed once nothing can happen to
the bundle any more. What decides who owns a round (claims, marks, door, `closed`, manifest, scripts) stays as it is: a
start that comes late must find it. A pack is never changed; who packs again makes another one. Whatever a pack holds
may stand beside it, too, where a crash cut the packing off: of a journal that is in both the longer one counts.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pilot.multijob.node.files import Steps, SyncDirectory, Unlink
from pilot.multijob.nodejournal import parse_lines
from pilot.multijob.operations import PutBytes, ReadBytes, Size
from pilot.ports import Damage

JOURNAL = re.compile(r"node\.\d{1,6}\.[A-Za-z0-9_-]{1,64}\.journal")
_PACK = re.compile(r"pack\.[A-Za-z0-9_-]{1,64}\.zip")
# What a write that was cut off left.
_REST = re.compile(r"\.pack\.[A-Za-z0-9_-]{1,64}\.zip")
_OTHER_MEMBERS = re.compile(
    r"(launched|turned-away)\.\d{1,6}|again\.\d{1,6}\.[A-Za-z0-9_-]{1,64}|batch\.\d{1,6}\.out|launchers\.out|commands\.json"
)
# The oldest time that the format knows: equal files make equal packs.
_STAMP = (1980, 1, 1, 0, 0, 0)


class PackRules(NamedTuple):
    """What one packing is told: bytes of all files together (the rest stays as it is), and how far each journal was
    read: one that shows less now is not packed."""

    bytes_max: int
    offsets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Packed:
    """What the packs of a directory hold, and those that cannot be read."""

    members: Mapping[str, bytes] = field(default_factory=dict)
    damaged: tuple[Damage, ...] = ()


def is_member(name: str) -> bool:
    """Whether a file of this name is packed once its bundle is over."""
    return bool(JOURNAL.fullmatch(name) or _OTHER_MEMBERS.fullmatch(name))


def render_pack(members: Mapping[str, bytes]) -> bytes:
    """One zip file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in sorted(members.items()):
            pack.writestr(zipfile.ZipInfo(name, _STAMP), content, zipfile.ZIP_DEFLATED)
        pack.comment = _checksum(members)
    return made.getvalue()


def parse_pack(content: bytes) -> Mapping[str, bytes]:
    """Its members, all of them as they were; raises ValueError for anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as pack:
            members, comment = {name: pack.read(name) for name in pack.namelist()}, pack.comment
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"no pack: {error}") from error
    if comment != _checksum(members):
        raise ValueError("no pack: members are missing or changed")
    return members


def _checksum(members: Mapping[str, bytes]) -> bytes:
    """Of names and contents together: each member's own does not tell of one that is missing."""
    value = 0
    for name, content in sorted(members.items()):
        value = zlib.crc32(content, zlib.crc32(f"{name} {len(content)} ".encode(), value))
    return b"%08x" % value


def read_packs(directory: str, names: Sequence[str]) -> Steps[Packed]:
    """What the packs among these names hold. Raises OSError where one cannot be read now."""
    members: dict[str, bytes] = {}
    damaged: list[Damage] = []
    for name in filter(_PACK.fullmatch, names):
        size: int = yield Size(f"{directory}/{name}")
        content: bytes = yield ReadBytes(f"{directory}/{name}", 0, size)
        try:
            found = parse_pack(content)
        except ValueError as error:
            damaged.append(Damage(name, 0, str(error)))
            continue
        for member, text in found.items():
            members[member] = max(members.get(member, b""), text, key=len)
    return Packed(members, tuple(damaged))


def pack_directory(
    directory: str, names: Sequence[str], rules: PackRules, draw: Callable[[], str]
) -> Steps[int]:
    """Pack what is loose among these names, then unlink what a pack holds. Replies how many files stay loose.

    May be cut off at any operation and called again: the pack is whole and durable before the first file goes.
    """
    for name in filter(_REST.fullmatch, names):
        yield Unlink(f"{directory}/{name}")
    loose = [name for name in names if is_member(name)]
    if not loose:
        return 0
    packed = yield from read_packs(directory, names)
    found = yield from _read_loose(directory, loose, rules)
    new = {name: content for name, content in found.items() if packed.members.get(name) != content}
    if new:
        name = f"pack.{draw()}.zip"
        yield PutBytes(f"{directory}/{name}", render_pack(new), f"{directory}/.{name}")
        written = yield from read_packs(directory, [name])
        if written.members != new:
            raise OSError(5, "the pack does not hold what was written", f"{directory}/{name}")
    gone = 0
    for name, content in found.items():
        # Not one that has grown since: its writer lives, or was seen late.
        if (yield Size(f"{directory}/{name}")) == len(content):
            yield Unlink(f"{directory}/{name}")
            gone += 1
    yield SyncDirectory(directory)
    return len(loose) - gone


def _read_loose(directory: str, names: Sequence[str], rules: PackRules) -> Steps[dict[str, bytes]]:
    """Contents of the files that may be packed: not what is too much, nor a journal that cannot be read whole now."""
    found: dict[str, bytes] = {}
    left = rules.bytes_max
    for name in names:
        content: bytes = yield ReadBytes(f"{directory}/{name}", 0, left + 1)
        if len(content) > left or (JOURNAL.fullmatch(name) and not _is_whole(name, content, rules)):
            continue
        found[name] = content
        left -= len(content)
    return found


def _is_whole(name: str, content: bytes, rules: PackRules) -> bool:
    lines = parse_lines(name, 0, content)
    return not lines.damaged and lines.tail is None and len(content) >= rules.offsets.get(name, 0)
