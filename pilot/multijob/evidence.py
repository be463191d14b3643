"""Evidence on a real filesystem: bundle directories, claims, doors, node journals (docs/architecture/files.md).

Implements `ports.Evidence`. Decides nothing: errors of the filesystem are `Unavailable`. Every method may be
called again after a lost answer.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from pilot.files import link_new, read_bounded, sync_directory, write_atomic, write_new
from pilot.multijob.nodejournal import Lines, parse_lines
from pilot.ports import (
    BatchId,
    BundleFiles,
    BundleId,
    Claim,
    ClaimMade,
    Done,
    EvidenceSeen,
    Failure,
    JournalLine,
    Unavailable,
)

BUNDLE_ID = re.compile(r"[a-z][a-z2-7]{8}")
_NUMBERED = re.compile(r"(claim|launched|turned-away)\.(\d{1,6})")
_JOURNAL = re.compile(r"node\.\d{1,6}\.[A-Za-z0-9_-]{1,64}\.journal")
SMALL_MAX_BYTES = 65536
# Read at a time: far more than one line can have, little enough to hold for several bundles.
READ_MAX_BYTES = 16 * 1024 * 1024
# A claim that cannot be read is looked at again so often: a write of another client is seen late.
LOOKS = 5
LOOK_AGAIN_S = 2.0
# The claim is there and stays like this: not a matter of looking again later.
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP)

P = ParamSpec("P")
R = TypeVar("R")


def _values(
    call: Callable[Concatenate[FileEvidence, P], R],
) -> Callable[Concatenate[FileEvidence, P], R | Failure]:
    """Errors of the filesystem as values."""

    def wrapped(self: FileEvidence, /, *args: P.args, **kwargs: P.kwargs) -> R | Failure:
        try:
            return call(self, *args, **kwargs)
        except OSError as error:
            return Unavailable(f"{error.strerror or error} ({error.filename})")

    return wrapped


@dataclass(frozen=True, slots=True)
class FileEvidence:
    """Evidence below `shared_dir`. `nonce` is drawn by each start of the daemon; `utc` gives text for people."""

    shared_dir: Path
    epoch: int
    host: str
    pid: int
    nonce: str
    utc: Callable[[], str]
    look_again_s: float = LOOK_AGAIN_S
    # `making.<epoch>` was made by this run: it is never made twice
    _began: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

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
    def prepare(self, files: BundleFiles) -> Done:
        """Build the directory in `making.<epoch>/` and rename it into place."""
        final = self.directory(files.bundle_id)
        if (final / "manifest.json").exists():
            sync_directory(self.bundles)
            return Done()
        if not self._began:
            self._begin()
        making = self._making(self.epoch) / files.bundle_id
        shutil.rmtree(making, ignore_errors=True)
        # Not with its parent: a newer epoch has put that away, and nothing of this one may get into place any more.
        making.mkdir()
        write_new(making / "manifest.json", files.manifest.encode())
        for number, text in files.scripts.items():
            write_new(making / f"script.{number}.sh", text.encode(), 0o755)
        sync_directory(making)
        os.rename(making, final)
        sync_directory(self.bundles)
        return Done()

    @_values
    def add_script(self, bundle_id: BundleId, round_k: int, text: str) -> Done:
        """Write the script of a later round."""
        write_atomic(self.directory(bundle_id) / f"script.{round_k}.sh", text.encode(), 0o755)
        return Done()

    @_values
    def read(self, bundle_id: BundleId, offsets: Mapping[str, int]) -> EvidenceSeen:
        """Claims, door, marks of gates, and the node journals' valid lines behind the offsets."""
        directory = self.directory(bundle_id)
        numbered: dict[str, list[int]] = {"claim": [], "launched": [], "turned-away": []}
        lines: list[JournalLine] = []
        damaged: list[str] = []
        names = sorted(os.listdir(directory))
        for name in names:
            if match := _NUMBERED.fullmatch(name):
                numbered[match.group(1)].append(int(match.group(2)))
            elif _JOURNAL.fullmatch(name):
                found = self._journal(directory / name, offsets.get(name, 0))
                lines.extend(found.lines)
                damaged.extend(found.damaged)
        claims = {number: self._claim(directory / f"claim.{number}", number) for number in numbered["claim"]}
        return EvidenceSeen(
            bundle_id,
            claims,
            self._door(directory / "door") if "door" in names else None,
            tuple(numbered["launched"]),
            tuple(numbered["turned-away"]),
            "closed" in names,
            tuple(lines),
            tuple(damaged),
        )

    def _journal(self, path: Path, offset: int) -> Lines:
        """Everything behind the offset, up to the end: the last reading of a bundle must leave nothing behind."""
        lines: list[JournalLine] = []
        damaged: list[str] = []
        if os.stat(path).st_size <= offset:
            return Lines((), ())
        with open(path, "rb") as source:
            while True:
                source.seek(offset)
                content = source.read(READ_MAX_BYTES)
                found = parse_lines(path.name, offset, content)
                lines.extend(found.lines)
                damaged.extend(found.damaged)
                if len(content) < READ_MAX_BYTES:
                    return Lines(tuple(lines), tuple(damaged))
                if not found.lines:
                    damaged.append(
                        f"{path.name}: no whole line in {READ_MAX_BYTES} bytes from byte {offset} on"
                    )
                    offset += READ_MAX_BYTES
                else:
                    offset = found.lines[-1].end

    @_values
    def make_claim(self, bundle_id: BundleId, round_k: int) -> ClaimMade:
        """Make claim(k) as the pilot by link(2) of an own fsynced file; an own or a pilot's claim found is won."""
        path = self.directory(bundle_id) / f"claim.{round_k}"
        claim = Claim("pilot", round_k, None, self.host, self.pid, self.nonce, self.utc())
        private = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        body = {
            "who": claim.who,
            "round": round_k,
            "batch_id": None,
            "host": claim.host,
            "pid": claim.pid,
            "nonce": claim.nonce,
            "utc": claim.utc,
        }
        write_new(private, json.dumps(body).encode())
        try:
            if link_new(private, path):
                return ClaimMade(True, claim)
        finally:
            private.unlink(missing_ok=True)
        found = self._claim(path, round_k)
        for _ in range(LOOKS - 1):
            if found.who != "unreadable":
                break
            time.sleep(self.look_again_s)
            found = self._claim(path, round_k)
        return ClaimMade(found.who == "pilot", found)

    def _claim(self, path: Path, number: int) -> Claim:
        """The claim in a file; who is "unreadable" where its text makes no sense (yet)."""
        try:
            body = json.loads(_read_small(path))
            if body["who"] not in ("gate", "pilot") or body["round"] != number:
                raise ValueError("who or round")
            if body["who"] == "gate" and not isinstance(body["batch_id"], str):
                raise ValueError("a gate's claim names its batch job")
            batch_id = None if body["batch_id"] is None else BatchId(str(body["batch_id"]))
            host, pid, nonce = str(body["host"]), int(body["pid"]), str(body["nonce"])
            return Claim(body["who"], number, batch_id, host, pid, nonce, str(body["utc"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return Claim("unreadable", number, None, "", 0, "", "")

    def _door(self, path: Path) -> int | None:
        try:
            return int(json.loads(_read_small(path))["round"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    @_values
    def set_door(self, bundle_id: BundleId, round_k: int) -> Done:
        """door := k. The door never goes back."""
        path = self.directory(bundle_id) / "door"
        standing = self._door(path) if path.exists() else None
        if standing is None or standing < round_k:
            write_atomic(path, json.dumps({"round": round_k}).encode())
        return Done()

    @_values
    def close(self, bundle_id: BundleId) -> Done:
        """Write `closed`."""
        path = self.directory(bundle_id) / "closed"
        if not path.exists():
            write_atomic(path, json.dumps({"utc": self.utc()}).encode())
        return Done()

    @_values
    def write_commands(self, bundle_id: BundleId, text: str) -> Done:
        """Replace `commands.json`."""
        write_atomic(self.directory(bundle_id) / "commands.json", text.encode())
        return Done()

    @_values
    def remove(self, bundle_id: BundleId) -> Done:
        """Remove the bundle's directory; renamed out of sight first, so that nobody finds half of one."""
        path = self.directory(bundle_id)
        gone = self.shared_dir / "removed" / bundle_id
        if path.exists():
            gone.parent.mkdir(exist_ok=True)
            os.rename(path, gone)
        if gone.exists():
            shutil.rmtree(gone)
        return Done()

    def known_bundles(self) -> tuple[BundleId, ...]:
        """Ids of all bundle directories in place. Raises OSError."""
        if not self.bundles.exists():
            return ()
        return tuple(BundleId(name) for name in sorted(os.listdir(self.bundles)) if BUNDLE_ID.fullmatch(name))

    def put_older_makings_away(self) -> None:
        """Rename `making.*` of older epochs: what an older daemon still builds never gets into place. Make the own one.

        Called once, before anything is built. Raises OSError.
        """
        for path in self.shared_dir.glob("making.*"):
            number = path.name.partition(".")[2]
            if number.isdigit() and int(number) < self.epoch:
                away = path.with_name(f"abandoned.{number}.{secrets.token_hex(4)}")
                os.rename(path, away)
                shutil.rmtree(away, ignore_errors=True)
        self._begin()

    def _begin(self) -> None:
        self.bundles.mkdir(exist_ok=True)
        self._making(self.epoch).mkdir(exist_ok=True)
        sync_directory(self.shared_dir)
        self._began.append(True)

    def _making(self, epoch: int) -> Path:
        return self.shared_dir / f"making.{epoch}"


def _read_small(path: Path) -> bytes:
    """The text of a claim or door; ValueError where it is there and cannot be read at all. Raises OSError."""
    try:
        content = read_bounded(path, SMALL_MAX_BYTES)
    except OSError as error:
        # errno is None: too long.
        if error.errno is None or error.errno in _UNREADABLE:
            raise ValueError(str(error)) from error
        raise
    return content
