"""Files: of the site (a local or shared directory), and long-term storage behind it.

Nothing is read, written or removed outside a root; files appear under their names only when they are whole and on disk.
"""

import json
import os
import re
import secrets
import shutil
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from prodsys_core import ports
from prodsys_core.config import Tape
from prodsys_core.ports import Accepted, Broken, Failure, NotThere, Refused, Stored, Unavailable, UnderWay

Seen = TypeVar("Seen")
BLOCK = 1 << 20
RECEIPT_MAX = 4096
"""Bytes of a receipt that are read; a tape system's receipt is one short line."""
_PART = re.compile(r"\.(\d{1,18})\.\d{1,9}\.[A-Za-z0-9_-]{1,64}\.\d{1,9}\.part")


class OutsideRoot(Exception):
    """A path that would leave its root; a bug or a hand-made row, never a state of the world."""


class NotYet(Exception):
    """What is needed cannot be had now; the text says why."""


def needed(seen: Seen | NotThere | Failure, path: str = "") -> Seen:
    """What was seen of a file; raises NotYet where there was nothing to see."""
    if isinstance(seen, NotThere):
        raise NotYet(f"{path} is not there")
    if isinstance(seen, Failure):
        raise NotYet(seen.reason)
    return seen


def below(root: str, path: str) -> Path:
    """`path` (absolute, or relative to root) as a path below `root`, links followed; raises OutsideRoot."""
    full = Path(root, path)
    try:
        inside = Path(os.path.realpath(full)).is_relative_to(os.path.realpath(root))
    except ValueError:  # it holds what no path holds: a NUL, half a character
        inside = False
    if ".." in full.parts or not inside:
        raise OutsideRoot(f"{path!a} is not below {root}")
    return full


class SiteFilesystem:
    """The site's shared file system, by absolute paths below its root."""

    def __init__(self, root: str) -> None:
        self._root = root

    def size(self, path: str) -> int | NotThere | Unavailable:
        """Size in bytes."""
        return self._look(path, lambda full: full.stat().st_size)

    def checksum(self, path: str) -> Stored | NotThere | Unavailable:
        """Size and adler32, read from the file."""
        return self._look(path, read_checksum)

    def _look(self, path: str, look: Callable[[Path], Seen]) -> Seen | NotThere | Unavailable:
        try:
            return look(below(self._root, path))
        except FileNotFoundError:
            return NotThere()
        except OSError as error:
            return Unavailable(f"{path}: {error.strerror}")

    def write_text(self, path: str, text: str) -> Accepted | Unavailable:
        """Write a small file, replacing one of that name."""
        try:
            with appearing(below(self._root, path)) as file:
                file.write(text.encode())
        except OSError as error:
            return Unavailable(f"{path}: {error.strerror}")
        return Accepted()

    def pack(self, path: str, members: Sequence[str]) -> Stored | Unavailable:
        """Put files into one tar under their names and read it back; members that are not there are left out."""
        try:
            with appearing(below(self._root, path)) as file:
                _write_tar(file, [below(self._root, member) for member in members])
            return read_checksum(below(self._root, path))
        except (OSError, tarfile.TarError) as error:
            return Unavailable(f"{path}: {error}")

    def remove(self, paths: Sequence[str]) -> int | Unavailable:
        """Remove files by name; returns how many were there. A name that is gone already is no error."""
        removed = 0
        for path in paths:
            gone = self._look(path, Path.unlink)
            if isinstance(gone, Unavailable):
                return gone
            removed += gone is None
        return removed

    def parts(self, directories: Iterable[str], panda_ids: Collection[int]) -> list[str] | Unavailable:
        """Files on their way (`.<PandaID>.<attemptNr>.<nonce>.<n>.part`, docs/architecture/files.md) of these PanDA
        jobs: a node that died while it placed an output leaves them."""
        found = []
        for directory in directories:
            names = self._look(directory, os.listdir)
            if isinstance(names, Unavailable):
                return names
            matches = map(_PART.fullmatch, [] if isinstance(names, NotThere) else names)
            found += [f"{directory}/{match[0]}" for match in matches if match and int(match[1]) in panda_ids]
        return found


class DirectoryTape(ports.LongTermStorage):
    """On a plain directory: copies, and confirms by reading back."""

    def __init__(self, root: str) -> None:
        self._root = root

    def put(self, source: str, target: str) -> Accepted | Failure:
        """Copy now; a whole file of that name is left as it is when it has the same content."""
        return _copy(source, self._root, target)

    def confirm(self, target: str) -> Stored | UnderWay | NotThere | Failure:
        """Read the copy."""
        return SiteFilesystem(self._root).checksum(target)


class DropboxTape(DirectoryTape):
    """Behind a drop box: we copy to `<root>/incoming`, the tape system moves the file to
    `<root>/tape` and writes `<root>/receipts/<path>.json`: {"size", "adler32"} as it computed them itself."""

    def put(self, source: str, target: str) -> Accepted | Failure:
        """Copy into the drop box, unless the tape system has it or is about to."""
        if not isinstance(self.confirm(target), NotThere):
            return Accepted()
        return _copy(source, self._root, f"incoming/{target}")

    def confirm(self, target: str) -> Stored | UnderWay | NotThere | Failure:
        """The tape system's receipt; without one the file may still be in the drop box."""
        try:
            receipt = below(self._root, f"receipts/{target}.json")
            if receipt.exists():
                text = receipt.read_text(encoding="utf-8", errors="replace")
                return _parse_receipt(text[:RECEIPT_MAX], target)
            waiting = any(below(self._root, f"{place}/{target}").exists() for place in ("incoming", "tape"))
            return UnderWay() if waiting else NotThere()
        except OSError as error:
            return Unavailable(f"{target}: {error.strerror}")


def open_tape(tape: Tape) -> ports.LongTermStorage:
    """The long-term storage that a site is configured with."""
    return DirectoryTape(tape.root) if tape.kind == "directory" else DropboxTape(tape.root)


def read_checksum(path: Path) -> Stored:
    """Size and adler32 of a file; raises OSError."""
    value, size = 1, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value = zlib.adler32(block, value)
            size += len(block)
    return Stored(size, f"{value:08x}")


@contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """A file of its own beside the target, which gets its name once it is whole and on disk; raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    own = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        with own.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(own, target)
    finally:
        own.unlink(missing_ok=True)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _copy(source: str, root: str, target: str) -> Accepted | Failure:
    try:
        place = below(root, target)
        if place.exists():
            same = read_checksum(place) == read_checksum(Path(source))
            return Accepted() if same else Refused(f"{target}: another file of that name is there")
        with Path(source).open("rb") as reader, appearing(place) as writer:
            shutil.copyfileobj(reader, writer, BLOCK)
    except OSError as error:
        return Unavailable(f"{error.filename or target}: {error.strerror}")
    return Accepted()


def _parse_receipt(text: str, target: str) -> Stored | Broken:
    try:
        receipt = json.loads(text)
        size, adler32 = int(receipt["size"]), str(receipt["adler32"])
    except (ValueError, KeyError, TypeError):
        return Broken(f"{target}: receipt cannot be read", text[:200])
    plain = re.fullmatch(r"[0-9a-f]{8}", adler32)
    return Stored(size, adler32) if plain else Broken(f"{target}: bad checksum")


def _write_tar(file: BinaryIO, members: Iterable[Path]) -> None:
    """Those of the members that are there, by name; raises TarError if they cannot be read back."""
    sizes: dict[str, int] = {}
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            if member.is_file():
                archive.add(member, arcname=member.name, recursive=False)
                sizes[member.name] = archive.getmember(member.name).size
    file.seek(0)
    with tarfile.open(fileobj=file) as archive:
        if sizes != {member.name: member.size for member in archive.getmembers()}:
            raise tarfile.TarError("the packed file does not hold what was put in")
