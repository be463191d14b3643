"""Evidence: bundle directories, claims, doors, node journals (docs/architecture/files.md).

Implements `ports.Evidence`. Decides nothing: errors of the filesystem are `Unavailable`. Every method may be
called again after a lost answer. Each is a sequence of file operations as values: `FileEvidence.run` carries them out,
on the real filesystem or (the virtual world) on a simulated one.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from pilot.multijob.node.files import (
    CountLinks,
    Exists,
    Link,
    Names,
    Pause,
    Put,
    PutNew,
    Read,
    Rename,
    Steps,
    SyncDirectory,
    Unlink,
    run_steps,
)
from pilot.multijob.nodejournal import Lines, parse_lines
from pilot.multijob.operations import (
    MakeDirectory,
    ReadBytes,
    RemoveTree,
    SameFile,
    Size,
    perform,
)
from pilot.multijob.pack import JOURNAL, Packed, PackRules, pack_directory, read_packs
from pilot.ports import (
    GONE,
    AlreadyThere,
    BatchId,
    BundleFiles,
    BundleId,
    BundlesFound,
    Claim,
    ClaimMade,
    Damage,
    DirectorySeen,
    Done,
    EvidenceSeen,
    Failure,
    JournalLine,
    Refused,
    Unavailable,
)

BUNDLE_ID = re.compile(r"[a-z][a-z2-7]{8}")
_NUMBERED = re.compile(r"(claim|launched|turned-away)\.(\d{1,6})")
_CLAIM = re.compile(r"claim\.(\d{1,6})")
_MARK = re.compile(r"mark\.(\d{1,6})\.([A-Za-z0-9_-]{1,64})")
PILOTS_MARK = "pilot"
_SCRIPT = re.compile(r"script\.(\d{1,6})\.sh")
_OUTPUT = re.compile(r"batch\.(\d{1,6})\.out")
# Torque's line when it has killed a job for its walltime, and Slurm's.
WALLTIME_WORDS = (b"=>> PBS: job killed: walltime ", b"DUE TO TIME LIMIT ***")
OUTPUT_TAIL_BYTES = 4096
SMALL_MAX_BYTES = 65536
# Read at a time: far more than one line can have, little enough to hold for several bundles.
READ_MAX_BYTES = 16 * 1024 * 1024
# A claim that cannot be read is looked at again so often: a write of another client is seen late.
LOOKS = 5
LOOK_AGAIN_S = 2.0
# The file is there and stays like this: not a matter of looking again later.
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP)

P = ParamSpec("P")
R = TypeVar("R")


def _values(
    call: Callable[Concatenate[FileEvidence, P], Steps[R]],
) -> Callable[Concatenate[FileEvidence, P], R | Failure]:
    """Carried out by `run`, errors of the filesystem as values."""

    def caught(steps: Steps[R]) -> Steps[R | Failure]:
        try:
            return (yield from steps)
        except OSError as error:
            return Unavailable(f"{error.strerror or error} ({error.filename})")

    def wrapped(self: FileEvidence, /, *args: P.args, **kwargs: P.kwargs) -> R | Failure:
        outcome: R | Failure = self.run(caught(call(self, *args, **kwargs)))
        return outcome

    return wrapped


def on_disk(steps: Steps[Any]) -> Any:
    """Carry out the operations on the real filesystem, one after the other."""
    return run_steps(steps, perform)


@dataclass(frozen=True, slots=True)
class FileEvidence:
    """Evidence below `shared_dir`. `nonce` is drawn by each start of the daemon; `utc` gives text for people.

    `draw` gives a new name for what nobody else may touch.
    """

    shared_dir: Path
    epoch: int
    host: str
    pid: int
    nonce: str
    utc: Callable[[], str]
    look_again_s: float = LOOK_AGAIN_S
    run: Callable[[Steps[Any]], Any] = on_disk
    draw: Callable[[], str] = lambda: secrets.token_hex(8)
    # `making.<epoch>` was made by this run: it is never made twice. One list for all copies of this value.
    began: list[bool] = field(default_factory=list, repr=False, compare=False)

    @property
    def bundles(self) -> Path:
        """Where the bundle directories are."""
        return self.shared_dir / "bundles"

    def directory(self, bundle_id: BundleId) -> Path:
        """Directory of a bundle; raises ValueError for anything that is no bundle id."""
        if not BUNDLE_ID.fullmatch(bundle_id):
            raise ValueError(f"not a bundle id: {bundle_id!a}")
        return self.bundles / bundle_id

    @_values
    def prepare(
        self, bundle_id: BundleId, render: Callable[[], BundleFiles | Refused]
    ) -> Steps[Done | AlreadyThere | Refused]:
        """Build the directory in `making.<epoch>/` and rename it into place.

        `render` is called only where it is not in place: what stands there is of another configuration, perhaps.
        """
        final = self.directory(bundle_id)
        if (yield Exists(f"{final}/manifest.json")):
            yield SyncDirectory(str(self.bundles))
            return AlreadyThere()
        files = render()
        if isinstance(files, Refused):
            return files
        if not self.began:
            yield from self._begin()
        making = f"{self._making(self.epoch)}/{bundle_id}"
        try:
            yield from _remove_all(making)
        except OSError:
            pass  # what is left of an earlier try shows in the next line
        # Not with its parent: a newer epoch has put that away, and nothing of this one may get into place any more.
        yield MakeDirectory(making)
        yield PutNew(f"{making}/manifest.json", files.manifest)
        for number, text in files.scripts.items():
            yield PutNew(f"{making}/script.{number}.sh", text, 0o755)
        yield SyncDirectory(making)
        yield Rename(making, str(final))
        yield SyncDirectory(str(self.bundles))
        return Done()

    @_values
    def add_script(self, bundle_id: BundleId, round_k: int, text: str) -> Steps[Done]:
        """Write the script of a later round."""
        yield from self._put(bundle_id, f"script.{round_k}.sh", text, 0o755)
        return Done()

    def _put(self, bundle_id: BundleId, name: str, text: str, mode: int = 0o644) -> Steps[None]:
        """Replace a file of a bundle; nothing half-written stays."""
        directory = self.directory(bundle_id)
        temp = f"{directory}/.{name}.{self.draw()}"
        try:
            yield Put(f"{directory}/{name}", text, temp, mode)
        except OSError:
            yield from _unlink_if_possible(temp)
            raise

    @_values
    def read(self, bundle_id: BundleId, offsets: Mapping[str, int]) -> Steps[EvidenceSeen | Failure]:
        """Claims, door, marks of gates, and the node journals' valid lines behind the offsets.

        A journal with an offset was there: it is read also where the listing leaves it out. What was packed is read
        from its pack, and the same is seen as before.
        """
        directory = self.directory(bundle_id)
        numbered: dict[str, list[int]] = {"claim": [], "launched": [], "turned-away": []}
        lines: list[JournalLine] = []
        damaged: list[Damage] = []
        tails: list[Damage] = []
        names: list[str] | Refused = yield from self._names_in(directory)
        if isinstance(names, Refused):
            return names
        packed = yield from read_packs(str(directory), names)
        damaged.extend(packed.damaged)
        for name in sorted({*names, *packed.members}):
            if match := _NUMBERED.fullmatch(name):
                numbered[match.group(1)].append(int(match.group(2)))
        known = (name for name, at in offsets.items() if at > 0)
        for name in sorted({*filter(JOURNAL.fullmatch, (*names, *packed.members, *known))}):
            try:
                found = yield from self._journal(directory / name, offsets.get(name, 0), names, packed)
            except FileNotFoundError:
                if name in names:
                    raise
                found = Lines((), (Damage(name, offsets[name], "was there and is gone"),))
            lines.extend(found.lines)
            damaged.extend(found.damaged)
            tails.extend([found.tail] if found.tail else [])
        claims = {}
        for number in numbered["claim"]:
            claims[number] = yield from self._claim(f"{directory}/claim.{number}", number)
        for number in sorted({int(match[1]) for name in names if (match := _MARK.fullmatch(name))}):
            claims[number] = yield from self._marked(str(directory), number, names)
        return EvidenceSeen(
            bundle_id,
            claims,
            (yield from self._door(f"{directory}/door")) if "door" in names else None,
            tuple(numbered["launched"]),
            tuple(numbered["turned-away"]),
            "closed" in names,
            tuple(lines),
            tuple(damaged),
            tuple(tails),
            (yield from self._over_walltime(directory, names, packed)) if "closed" in names else (),
            tuple(int(match[1]) for name in names if (match := _SCRIPT.fullmatch(name))),
        )

    def _names_in(self, directory: Path) -> Steps[list[str] | Refused]:
        """Names in a bundle's directory. `Refused`: all bundles can be listed, and this one is not among them."""
        try:
            names: list[str] = yield Names(str(directory))
        except FileNotFoundError:
            listed: list[str] = yield Names(str(self.bundles))
            if directory.name in listed:
                raise
            return Refused(GONE, f"{directory} is not there")
        return names

    def _over_walltime(self, directory: Path, names: list[str], packed: Packed) -> Steps[tuple[int, ...]]:
        """Rounds whose batch output ends with the batch system's word for a used-up walltime."""
        found: list[int] = []
        outputs = (_OUTPUT.fullmatch(name) for name in {*names, *packed.members})
        for number in sorted(int(match[1]) for match in outputs if match):
            name = f"batch.{number}.out"
            tail = packed.members.get(name, b"")[-OUTPUT_TAIL_BYTES:]
            if name in names:
                path = f"{directory}/{name}"
                try:
                    size: int = yield Size(path)
                    tail = yield ReadBytes(path, max(0, size - OUTPUT_TAIL_BYTES), OUTPUT_TAIL_BYTES)
                except OSError:
                    continue  # a hint, not a fact that anything waits for
            if any(words in tail for words in WALLTIME_WORDS):
                found.append(number)
        return tuple(found)

    def _journal(self, path: Path, offset: int, names: list[str], packed: Packed) -> Steps[Lines]:
        """Everything behind the offset, up to the end: the last reading of a bundle must leave nothing behind."""
        lines: list[JournalLine] = []
        damaged: list[Damage] = []
        member = packed.members.get(path.name)
        size: int = 0 if member is not None and path.name not in names else (yield Size(str(path)))
        if member is not None and size <= len(member):
            return parse_lines(path.name, offset, member[offset:])
        if size <= offset:
            return Lines((), ())
        while True:
            content: bytes = yield ReadBytes(str(path), offset, READ_MAX_BYTES)
            found = parse_lines(path.name, offset, content)
            lines.extend(found.lines)
            damaged.extend(found.damaged)
            if len(content) < READ_MAX_BYTES:
                return Lines(tuple(lines), tuple(damaged), found.tail)
            if not found.lines:
                damaged.append(Damage(path.name, offset, f"no line in {READ_MAX_BYTES} bytes"))
                offset += READ_MAX_BYTES
            else:
                offset = found.lines[-1].end

    @_values
    def make_claim(self, bundle_id: BundleId, round_k: int, weak: bool = False) -> Steps[ClaimMade]:
        """Make claim(k) as the pilot by link(2) of an own fsynced file; an own or a pilot's claim found is won.

        `weak`: look at the marks instead, visible_s after `make_mark`; a batch job's is lost.
        """
        if weak:
            return (yield from self._look_at_marks(bundle_id, round_k))
        return (yield from self._make_claim(bundle_id, round_k))

    @_values
    def make_mark(self, bundle_id: BundleId, round_k: int) -> Steps[Done]:
        """Make the pilot's mark of round k, or find the one of an earlier run; durable on return."""
        return (yield from self._make_mark(bundle_id, round_k))

    def _make_mark(self, bundle_id: BundleId, round_k: int) -> Steps[Done]:
        directory = str(self.directory(bundle_id))
        try:
            yield PutNew(f"{directory}/mark.{round_k}.{PILOTS_MARK}", json.dumps(self._own_claim(round_k)))
        except FileExistsError:
            pass
        yield SyncDirectory(directory)
        return Done()

    def _look_at_marks(self, bundle_id: BundleId, round_k: int) -> Steps[ClaimMade]:
        directory = str(self.directory(bundle_id))
        names: list[str] = yield Names(directory)
        if f"mark.{round_k}.{PILOTS_MARK}" not in names:
            raise FileNotFoundError(errno.ENOENT, "the pilot's mark is gone", f"{directory}/mark.{round_k}")
        found = yield from self._marked(directory, round_k, names)
        return ClaimMade(found.who == "pilot", found)

    def _marked(self, directory: str, number: int, names: list[str]) -> Steps[Claim]:
        """What all marks of a round say: the pilot's where no batch job made one; unreadable where one of theirs is."""
        marks: list[Claim] = []
        for name in sorted(names):
            match = _MARK.fullmatch(name)
            if match and int(match[1]) == number and match[2] != PILOTS_MARK:
                marks.append((yield from self._claim(f"{directory}/{name}", number)))
        if not marks:
            return Claim("pilot", number, None, "", 0, "", "")
        unreadable = [mark for mark in marks if mark.batch_id is None]
        if unreadable:
            return unreadable[0]
        others = dict.fromkeys(mark.batch_id for mark in marks[1:] if mark.batch_id is not None)
        others.pop(cast(BatchId, marks[0].batch_id), None)
        return replace(marks[0], others=tuple(others))

    def _make_claim(self, bundle_id: BundleId, round_k: int) -> Steps[ClaimMade]:
        directory = str(self.directory(bundle_id))
        path = f"{directory}/claim.{round_k}"
        body = self._own_claim(round_k)
        claim = Claim("pilot", round_k, None, self.host, self.pid, self.nonce, body["utc"])
        private = f"{path}.{self.draw()}"
        try:
            yield PutNew(private, json.dumps(body))
            made = yield from _link_new(directory, private, path)
        except OSError:
            yield from _unlink_if_possible(private)
            raise
        yield from _unlink_if_possible(private)
        if made:
            return ClaimMade(True, claim)
        found = yield from self._claim(path, round_k)
        for _ in range(LOOKS - 1):
            if found.who != "unreadable":
                break
            yield Pause(self.look_again_s)
            found = yield from self._claim(path, round_k)
        return ClaimMade(found.who == "pilot", found)

    def _own_claim(self, round_k: int) -> dict[str, Any]:
        """Content of the pilot's claim or mark."""
        own = {"host": self.host, "pid": self.pid, "nonce": self.nonce, "utc": self.utc()}
        return {"who": "pilot", "round": round_k, "batch_id": None, **own}

    def _claim(self, path: str, number: int) -> Steps[Claim]:
        """The claim in a file; who is "unreadable" where its text makes no sense (yet)."""
        try:
            body = json.loads((yield from _read_small(path)))
            if body["who"] not in ("gate", "pilot") or body["round"] != number:
                raise ValueError("who or round")
            if body["who"] == "gate" and not isinstance(body["batch_id"], str):
                raise ValueError("a gate's claim names its batch job")
            batch_id = None if body["batch_id"] is None else BatchId(str(body["batch_id"]))
            host, pid, nonce = str(body["host"]), int(body["pid"]), str(body["nonce"])
            return Claim(body["who"], number, batch_id, host, pid, nonce, str(body["utc"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return Claim("unreadable", number, None, "", 0, "", "")

    def _door(self, path: str) -> Steps[int | None]:
        try:
            return int(json.loads((yield from _read_small(path)))["round"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    @_values
    def set_door(self, bundle_id: BundleId, round_k: int) -> Steps[Done]:
        """door := k. The door never goes back."""
        path = f"{self.directory(bundle_id)}/door"
        standing = (yield from self._door(path)) if (yield Exists(path)) else None
        if standing is None or standing < round_k:
            yield from self._put(bundle_id, "door", json.dumps({"round": round_k}))
        return Done()

    @_values
    def close(self, bundle_id: BundleId) -> Steps[Done]:
        """Write `closed`."""
        if not (yield Exists(f"{self.directory(bundle_id)}/closed")):
            yield from self._put(bundle_id, "closed", json.dumps({"utc": self.utc()}))
        return Done()

    @_values
    def write_commands(self, bundle_id: BundleId, text: str) -> Steps[Done]:
        """Replace `commands.json`."""
        yield from self._put(bundle_id, "commands.json", text)
        return Done()

    @_values
    def link_outputs(self, pairs: Sequence[tuple[str, str]]) -> Steps[Done | Failure]:
        """A second link for each output; `Refused` where one is missing or its new name is another file's."""
        for source, target in pairs:
            try:
                yield Link(source, target)
            except FileExistsError:
                if not (yield SameFile(source, target)):
                    return Refused("exists", f"{target}: is another file")
            except FileNotFoundError:
                return Refused("missing", f"{source}: is not there, or no directory for {target}")
        for directory in sorted({target.rpartition("/")[0] for _, target in pairs}):
            yield SyncDirectory(directory)
        return Done()

    @_values
    def pack(self, bundle_id: BundleId, offsets: Mapping[str, int], bytes_max: int) -> Steps[Done | Failure]:
        """Make one file of the small files of a bundle that is over; nothing is left to do once it is `Done`.

        `offsets`: how far its journals were read. `bytes_max`: of all files together, what is more stays as it is.
        `Refused`: the directory is gone.
        """
        directory = self.directory(bundle_id)
        names: list[str] | Refused = yield from self._names_in(directory)
        if isinstance(names, Refused):
            return names
        yield from pack_directory(str(directory), names, PackRules(bytes_max, offsets), self.draw)
        return Done()

    @_values
    def remove(self, bundle_id: BundleId) -> Steps[Done]:
        """Remove the bundle's directory; renamed out of sight first, so that nobody finds half of one."""
        path = str(self.directory(bundle_id))
        removed = f"{self.shared_dir}/removed"
        if (yield Exists(path)):
            yield MakeDirectory(removed, exist_ok=True)
            yield Rename(path, f"{removed}/{bundle_id}")
        if (yield Exists(f"{removed}/{bundle_id}")):
            yield from _remove_all(f"{removed}/{bundle_id}")
        return Done()

    @_values
    def find(self) -> Steps[BundlesFound]:
        """Ids of all bundle directories in place."""
        names: list[str] = yield Names(str(self.bundles))
        return BundlesFound(tuple(BundleId(name) for name in names if BUNDLE_ID.fullmatch(name)))

    @_values
    def adopt(self, bundle_id: BundleId) -> Steps[DirectorySeen | Failure]:
        """claim(1) as the pilot, or the one that is there; then the manifest and how many rounds there were. With weak
        fencing its mark, too: that is what gates look for.

        `Refused`: the directory is gone, or it is not this user's: nothing can be made in it.
        """
        directory = self.directory(bundle_id)
        found: list[str] | Refused = yield from self._names_in(directory)
        if isinstance(found, Refused):
            return found
        try:
            yield from self._make_claim(bundle_id, 1)
        except OSError as error:
            if error.errno in _UNREADABLE:
                return Refused("denied", f"no claim can be made in {directory}: {error.strerror}")
            raise
        # Once more: what was there before the claim shows now.
        names: list[str] = yield Names(str(directory))
        matches = (p.fullmatch(name) for name in names for p in (_SCRIPT, _CLAIM, _MARK))
        rounds = max((int(match[1]) for match in matches if match), default=1)
        manifest = yield from _manifest(str(directory))
        if manifest is not None and says_weak(manifest):
            yield from self._make_mark(bundle_id, 1)
        return DirectorySeen(bundle_id, manifest, rounds)

    def put_older_makings_away(self) -> None:
        """Rename `making.*` of older epochs: what an older daemon still builds never gets into place. Make the own one.

        Called once, before anything is built. Raises OSError.
        """
        self.run(self._put_older_makings_away())

    def _put_older_makings_away(self) -> Steps[None]:
        names: list[str] = yield Names(str(self.shared_dir))
        for name in names:
            word, _, number = name.partition(".")
            if word == "making" and number.isdigit() and int(number) < self.epoch:
                away = f"{self.shared_dir}/abandoned.{number}.{self.draw()}"
                yield Rename(f"{self.shared_dir}/{name}", away)
                try:
                    yield from _remove_all(away)
                except OSError:
                    pass  # out of the way is what counts
        yield from self._begin()

    def _begin(self) -> Steps[None]:
        yield MakeDirectory(str(self.bundles), exist_ok=True)
        yield MakeDirectory(str(self._making(self.epoch)), exist_ok=True)
        yield SyncDirectory(str(self.shared_dir))
        self.began.append(True)

    def _making(self, epoch: int) -> Path:
        return self.shared_dir / f"making.{epoch}"


def _manifest(directory: str) -> Steps[str | None]:
    """The manifest's text, None where it is not there or cannot be read."""
    try:
        text: str = yield Read(f"{directory}/manifest.json")
    except OSError as error:
        if error.errno not in (*_UNREADABLE, errno.ENOENT):
            raise
        return None
    return text


def says_weak(manifest: str) -> bool:
    """Whether gates that read this manifest mark, wait and look, and make no claim."""
    try:
        found = json.loads(manifest)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("fencing") == "weak"


def _link_new(directory: str, private: str, path: str) -> Steps[bool]:
    """Make `path` by link(2) of the fsynced `private`; True for exactly one maker, durable on return.

    Decided by the own file, not by the error: an answer lost on a network filesystem shows as EEXIST although the
    link was made.
    """
    try:
        yield Link(private, path)
    except FileExistsError:
        pass
    yield SyncDirectory(directory)
    return (yield CountLinks(private)) == 2 or bool((yield SameFile(private, path)))


def _unlink_if_possible(path: str) -> Steps[None]:
    try:
        yield Unlink(path)
    except OSError:
        pass  # nobody reads it


def _remove_all(directory: str) -> Steps[None]:
    while not (yield RemoveTree(directory)):
        pass


def _read_small(path: str) -> Steps[bytes]:
    """The text of a claim or door; ValueError where it is there and cannot be read at all. Raises OSError."""
    try:
        content: bytes = yield ReadBytes(path, 0, SMALL_MAX_BYTES + 1)
    except OSError as error:
        if error.errno in _UNREADABLE:
            raise ValueError(str(error)) from error
        raise
    if len(content) > SMALL_MAX_BYTES:
        raise ValueError(f"{path}: more than {SMALL_MAX_BYTES} bytes")
    return content
