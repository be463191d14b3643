"""`ports.Evidence` over the simulated filesystem, as the client "edge" sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilot.multijob.node import files
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
from simulators.world.node import Agent
from simulators.world.sharedfs import Inode, SharedFiles

EDGE = "edge"
_CLAIM = re.compile(r"claim\.(\d+)")


@dataclass(slots=True)
class WorldEvidence:
    """Evidence of one daemon. `nonce` is drawn by each start; `lines_of` gives each agent's lines with their time."""

    shared: SharedFiles
    root: str
    nonce: str
    agents: Mapping[str, list[Agent]]
    lines_late_s: float = 0.0
    closed_at_s: dict[str, float] = field(default_factory=dict)

    def directory(self, bundle_id: BundleId) -> str:
        """Directory of a bundle."""
        return f"{self.root}/bundles/{bundle_id}"

    def prepare(self, bundle: BundleFiles) -> Done | Failure:
        """The directory appears whole."""
        directory = self.directory(bundle.bundle_id)
        if f"{directory}/manifest.json" not in self.shared.names:
            for number, text in bundle.scripts.items():
                self._put(f"{directory}/script.{number}.sh", text)
            self._put(f"{directory}/manifest.json", bundle.manifest)
        return Done()

    def add_script(self, bundle_id: BundleId, round_k: int, text: str) -> Done | Failure:
        """A later round's script."""
        self._put(f"{self.directory(bundle_id)}/script.{round_k}.sh", text)
        return Done()

    def read(self, bundle_id: BundleId, offsets: Mapping[str, int]) -> EvidenceSeen | Failure:
        """Claims and lines that the edge can see now."""
        directory = self.directory(bundle_id)
        claims = {}
        for name in self.shared.perform(files.Names(directory), EDGE):
            if match := _CLAIM.fullmatch(name):
                claims[int(match.group(1))] = self._claim(f"{directory}/{name}", int(match.group(1)))
        lines: list[JournalLine] = []
        for agent in self.agents.get(directory, []):
            for at_s, line in agent.lines:
                if line.end > offsets.get(line.file, 0) and self.shared.now_s >= at_s + self.lines_late_s:
                    lines.append(line)
        closed = self.shared.seen(f"{directory}/closed", EDGE) is not None
        return EvidenceSeen(bundle_id, claims, None, (), (), closed, tuple(lines))

    def make_claim(self, bundle_id: BundleId, round_k: int) -> ClaimMade | Failure:
        """As the pilot, by link(2)."""
        path = f"{self.directory(bundle_id)}/claim.{round_k}"
        mine = Claim("pilot", round_k, None, EDGE, 1, self.nonce, "t")
        private = f"{path}.{self.nonce}"
        self._put(private, json.dumps(_body(mine)))
        try:
            self.shared.perform(files.Link(private, path), EDGE)
            return ClaimMade(True, mine)
        except FileExistsError:
            found = _parse(self.shared.names[path], round_k)
            return ClaimMade(found.who == "pilot", found)
        finally:
            self.shared.perform(files.Unlink(private), EDGE)

    def set_door(self, bundle_id: BundleId, round_k: int) -> Done | Failure:
        """door := k."""
        self._put(f"{self.directory(bundle_id)}/door", json.dumps({"round": round_k}))
        return Done()

    def close(self, bundle_id: BundleId) -> Done | Failure:
        """Write `closed`."""
        directory = self.directory(bundle_id)
        self.closed_at_s.setdefault(directory, self.shared.now_s)
        self._put(f"{directory}/closed", "{}")
        return Done()

    def write_commands(self, bundle_id: BundleId, text: str) -> Done | Failure:
        """Replace commands.json."""
        self._put(f"{self.directory(bundle_id)}/commands.json", text)
        return Done()

    def remove(self, bundle_id: BundleId) -> Done | Failure:
        """Forget the directory."""
        start = self.directory(bundle_id) + "/"
        for name in [name for name in self.shared.names if name.startswith(start)]:
            del self.shared.names[name]
        return Done()

    def _put(self, path: str, text: str) -> None:
        self.shared.perform(files.Put(path, text, f"{path}.temp"), EDGE)

    def _claim(self, path: str, number: int) -> Claim:
        inode = self.shared.seen(path, EDGE)
        return (
            _parse(inode, number) if inode is not None else Claim("unreadable", number, None, "", 0, "", "")
        )


def _body(claim: Claim) -> dict[str, Any]:
    return {
        "who": claim.who,
        "round": claim.round,
        "batch_id": claim.batch_id,
        "host": claim.host,
        "pid": claim.pid,
        "nonce": claim.nonce,
        "utc": claim.utc,
    }


def _parse(inode: Inode, number: int) -> Claim:
    body = json.loads(inode.text)
    batch_id = None if body["batch_id"] is None else BatchId(body["batch_id"])
    return Claim(body["who"], number, batch_id, body["host"], body["pid"], body["nonce"], body["utc"])


def nothing_known(reason: str) -> Unavailable:
    """The outcome of a call whose answer was lost."""
    return Unavailable(reason)
