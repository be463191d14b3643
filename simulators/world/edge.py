"""`ports.Evidence` over the virtual filesystem, step for step as `pilot.multijob.evidence` has it on a real one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Concatenate, ParamSpec, TypeVar

from pilot.multijob.node import files
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
from simulators.world.files import VirtualFiles

_NUMBERED = re.compile(r"(claim|launched|turned-away)\.(\d{1,6})")
_JOURNAL = re.compile(r"node\.\d{1,6}\.[A-Za-z0-9_-]{1,64}\.journal")

P = ParamSpec("P")
R = TypeVar("R")


def _values(
    call: Callable[Concatenate[EdgeEvidence, P], R],
) -> Callable[Concatenate[EdgeEvidence, P], R | Failure]:
    """Errors of the filesystem as values."""

    def wrapped(self: EdgeEvidence, /, *args: P.args, **kwargs: P.kwargs) -> R | Failure:
        try:
            return call(self, *args, **kwargs)
        except OSError as error:
            return Unavailable(f"{error.strerror or error} ({error.filename})")

    return wrapped


@dataclass(slots=True)
class EdgeEvidence:
    """Evidence of one run of the daemon, as the client `client`. `nonce` is drawn by each run."""

    shared: VirtualFiles
    shared_dir: str
    client: str
    epoch: int
    nonce: str
    _made: int = field(default=0, init=False)

    def directory(self, bundle_id: BundleId) -> str:
        """Directory of a bundle."""
        return f"{self.shared_dir}/bundles/{bundle_id}"

    @_values
    def prepare(self, bundle: BundleFiles) -> Done:
        """Build the directory in `making.<epoch>/` and rename it into place."""
        final = self.directory(bundle.bundle_id)
        if self.shared.seen(self.client, f"{final}/manifest.json") is not None:
            return Done()
        if self.shared.current(self._making_mark(self.epoch)) is None:
            raise FileNotFoundError(2, "No such file or directory", self._making_mark(self.epoch))
        making = f"{self.shared_dir}/making.{self.epoch}/{bundle.bundle_id}"
        self._put(f"{making}/manifest.json", bundle.manifest)
        for number, text in bundle.scripts.items():
            self._put(f"{making}/script.{number}.sh", text)
        self.shared.rename_directory(self.client, making, final)
        return Done()

    @_values
    def add_script(self, bundle_id: BundleId, round_k: int, text: str) -> Done:
        """Write the script of a later round."""
        self._put(f"{self.directory(bundle_id)}/script.{round_k}.sh", text)
        return Done()

    @_values
    def read(self, bundle_id: BundleId, offsets: Mapping[str, int]) -> EvidenceSeen:
        """Claims, door, marks of gates, and the node journals' valid lines behind the offsets."""
        directory = self.directory(bundle_id)
        numbered: dict[str, list[int]] = {"claim": [], "launched": [], "turned-away": []}
        lines: list[JournalLine] = []
        damaged: list[str] = []
        names = self.shared.perform(self.client, files.Names(directory))
        for name in names:
            if match := _NUMBERED.fullmatch(name):
                numbered[match.group(1)].append(int(match.group(2)))
            elif _JOURNAL.fullmatch(name):
                text = self.shared.perform(self.client, files.Read(f"{directory}/{name}")).encode()
                offset = offsets.get(name, 0)
                found = parse_lines(name, offset, text[offset:])
                lines.extend(found.lines)
                damaged.extend(found.damaged)
        claims = {number: self._claim(f"{directory}/claim.{number}", number) for number in numbered["claim"]}
        return EvidenceSeen(
            bundle_id,
            claims,
            self._door(f"{directory}/door") if "door" in names else None,
            tuple(numbered["launched"]),
            tuple(numbered["turned-away"]),
            "closed" in names,
            tuple(lines),
            tuple(damaged),
        )

    @_values
    def make_claim(self, bundle_id: BundleId, round_k: int) -> ClaimMade:
        """Make claim(k) as the pilot by link(2) of an own file; an own or a pilot's claim found is won."""
        path = f"{self.directory(bundle_id)}/claim.{round_k}"
        claim = Claim("pilot", round_k, None, self.client, 1, self.nonce, "t")
        self._made += 1
        private = f"{path}.{self.nonce}-{self._made}"
        body = {
            name: getattr(claim, name) for name in ("who", "round", "batch_id", "host", "pid", "nonce", "utc")
        }
        self.shared.perform(self.client, files.PutNew(private, json.dumps(body)))
        try:
            self.shared.perform(self.client, files.Link(private, path))
            return ClaimMade(True, claim)
        except FileExistsError:
            if self.shared.perform(self.client, files.CountLinks(private)) == 2:
                return ClaimMade(True, claim)
        finally:
            self.shared.perform(self.client, files.Unlink(private))
        found = self._claim(path, round_k)
        return ClaimMade(found.who == "pilot", found)

    @_values
    def set_door(self, bundle_id: BundleId, round_k: int) -> Done:
        """door := k. The door never goes back."""
        path = f"{self.directory(bundle_id)}/door"
        standing = self._door(path) if self.shared.seen(self.client, path) is not None else None
        if standing is None or standing < round_k:
            self._put(path, json.dumps({"round": round_k}))
        return Done()

    @_values
    def close(self, bundle_id: BundleId) -> Done:
        """Write `closed`."""
        path = f"{self.directory(bundle_id)}/closed"
        if self.shared.seen(self.client, path) is None:
            self._put(path, "{}")
        return Done()

    @_values
    def write_commands(self, bundle_id: BundleId, text: str) -> Done:
        """Replace `commands.json`."""
        self._put(f"{self.directory(bundle_id)}/commands.json", text)
        return Done()

    @_values
    def remove(self, bundle_id: BundleId) -> Done:
        """Remove the bundle's directory."""
        for path in self.shared.paths(self.directory(bundle_id) + "/"):
            self.shared.perform(self.client, files.Unlink(path))
        return Done()

    def known_bundles(self) -> tuple[BundleId, ...]:
        """Ids of all bundle directories in place."""
        names = self.shared.perform(self.client, files.Names(f"{self.shared_dir}/bundles"))
        return tuple(BundleId(name) for name in sorted({name.partition("/")[0] for name in names}))

    def put_older_makings_away(self) -> None:
        """What an older daemon still builds never gets into place. Make the own place."""
        for epoch in range(1, self.epoch):
            self.shared.perform(self.client, files.Unlink(self._making_mark(epoch)))
            for path in self.shared.paths(f"{self.shared_dir}/making.{epoch}/"):
                self.shared.perform(self.client, files.Unlink(path))
        self.shared.perform(self.client, files.PutNew(self._making_mark(self.epoch), ""))

    def _making_mark(self, epoch: int) -> str:
        """Stands for the directory itself: this filesystem knows files only."""
        return f"{self.shared_dir}/making.{epoch}/."

    def _put(self, path: str, text: str) -> None:
        self.shared.perform(self.client, files.Put(path, text, f"{path}.temp"))

    def _claim(self, path: str, number: int) -> Claim:
        text = self.shared.perform(self.client, files.Read(path))
        try:
            body = json.loads(text)
            batch_id = None if body["batch_id"] is None else BatchId(str(body["batch_id"]))
            return Claim(body["who"], number, batch_id, body["host"], body["pid"], body["nonce"], body["utc"])
        except (ValueError, KeyError, TypeError):
            return Claim("unreadable", number, None, "", 0, "", "")

    def _door(self, path: str) -> int | None:
        try:
            return int(json.loads(self.shared.perform(self.client, files.Read(path)))["round"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
