"""Evidence on a real filesystem: bundle directories, claims, doors, node journals (docs/architecture/files.md).

Implements `ports.Evidence`. Decides nothing: errors of the filesystem are `Unavailable`. Every method may be
called again after a lost answer.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from pilot.files import link_new, read_bounded, sync_directory, write_atomic, write_new
from pilot.multijob.nodejournal import parse_lines
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
# One reading takes at most this much of one node journal; the rest comes with the next one.
READ_MAX_BYTES = 16 * 1024 * 1024

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
            return Done()
        making = self.shared_dir / f"making.{self.epoch}" / files.bundle_id
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        self.bundles.mkdir(exist_ok=True)
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

    def _journal(self, path: Path, offset: int) -> Any:
        with open(path, "rb") as source:
            if os.fstat(source.fileno()).st_size <= offset:
                return parse_lines(path.name, offset, b"")
            source.seek(offset)
            return parse_lines(path.name, offset, source.read(READ_MAX_BYTES))

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
        return ClaimMade(found.who == "pilot", found)

    def _claim(self, path: Path, number: int) -> Claim:
        """The claim in a file; who is "unreadable" where its text makes no sense (yet)."""
        try:
            body = json.loads(read_bounded(path, SMALL_MAX_BYTES))
            if body["who"] not in ("gate", "pilot") or int(body["round"]) != number:
                raise ValueError("who or round")
            batch_id = None if body["batch_id"] is None else BatchId(str(body["batch_id"]))
            host, pid, nonce = str(body["host"]), int(body["pid"]), str(body["nonce"])
            return Claim(body["who"], number, batch_id, host, pid, nonce, str(body["utc"]))
        except (ValueError, KeyError, TypeError):
            return Claim("unreadable", number, None, "", 0, "", "")

    def _door(self, path: Path) -> int | None:
        try:
            return int(json.loads(read_bounded(path, SMALL_MAX_BYTES))["round"])
        except (ValueError, KeyError, TypeError):
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
        """Remove the bundle's directory; renamed out of sight first."""
        path = self.directory(bundle_id)
        gone = self.shared_dir / f"removed.{self.epoch}" / bundle_id
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
        """Rename `making.*` of older epochs: what an older daemon still builds never gets into place."""
        for path in self.shared_dir.glob("making.*"):
            number = path.name.partition(".")[2]
            if number.isdigit() and int(number) < self.epoch:
                os.rename(path, path.with_name(f"abandoned.{number}.{secrets.token_hex(4)}"))
