"""The tape's directories: `incoming/` is the drop box, `tape/` what is kept, `receipts/<path>.json` what it says of it.

A receipt is {"size", "adler32"} as read back from `tape/`. Files whose names begin with a dot are not whole yet.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from pathlib import Path

from simulators.storage.model import Action, Keep, Lose, Shorten, TapeModel, TapeRules

BLOCK = 1 << 20


class Tape:
    """One tape system on a directory."""

    def __init__(self, root: Path, rules: TapeRules) -> None:
        self.root = root
        self._model = TapeModel(rules)
        for name in ("incoming", "tape", "receipts"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def step(self, now_s: float) -> tuple[Action, ...]:
        """Look at the drop box once and do what is due; returns what was done."""
        actions = self._model.advance(_listing(self.root / "incoming"), now_s)
        for action in actions:
            self._perform(action)
        self._give_missing_receipts()
        return actions

    def run(self, poll_s: float, stop: threading.Event) -> None:
        """Step every `poll_s` seconds until `stop` is set."""
        while not stop.wait(poll_s):
            self.step(time.monotonic())

    def _perform(self, action: Action) -> None:
        incoming, kept = self.root / "incoming" / action.path, self.root / "tape" / action.path
        match action:
            case Lose():
                incoming.unlink(missing_ok=True)
            case Keep() | Shorten():
                if isinstance(action, Shorten):
                    os.truncate(incoming, max(incoming.stat().st_size - 1, 0))
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.replace(incoming, kept)

    def _give_missing_receipts(self) -> None:
        """Also those of files that were kept by a tape that ended before it wrote the receipt."""
        for path in _listing(self.root / "tape"):
            receipt = self.root / "receipts" / f"{path}.json"
            if not receipt.exists():
                receipt.parent.mkdir(parents=True, exist_ok=True)
                size, adler32 = read_back(self.root / "tape" / path)
                own = receipt.with_name(f".{receipt.name}.part")
                with own.open("w", encoding="utf-8") as file:
                    json.dump({"size": size, "adler32": adler32}, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(own, receipt)


def read_back(path: Path) -> tuple[int, str]:
    """Size and adler32 (8 hex digits) of a kept file."""
    value, size = 1, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value = zlib.adler32(block, value)
            size += len(block)
    return size, f"{value:08x}"


def _listing(folder: Path) -> dict[str, int]:
    """Size by relative path of the whole files below a directory."""
    found: dict[str, int] = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory, name)
            if not name.startswith("."):
                found[str(path.relative_to(folder))] = path.stat().st_size
    return found
