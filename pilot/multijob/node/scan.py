"""What a payload printed, read once: end marker, error texts, event counts, the last words on stderr. Pure."""

from __future__ import annotations

import functools
import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Pattern, Sequence, Tuple

from pilot.multijob.node.journal import escape
from pilot.multijob.node.manifest import Kind

TAIL_CHARACTERS = 500
# A line longer than this is looked at in pieces: a payload that prints no newline must not fill the memory.
LINE_MAX_BYTES = 1024 * 1024
# A count of events has fewer digits; more is no count.
COUNT_DIGITS_MAX = 18


class Findings(NamedTuple):
    """Facts of both streams. `marker` is None where no end marker is expected. `markers`: of each step that ran."""

    marker: Optional[bool]
    patterns: Tuple[str, ...]
    events_read: Optional[int]
    events_written: Optional[int]
    stderr_tail: str
    markers: Tuple[Optional[bool], ...] = ()


class StreamScan:
    """One stream: feed it in pieces of any size; whole lines are searched, the last line when `end` is called.

    Texts are found anywhere in a line; of an event count (a regular expression with one group) the last match counts.
    """

    def __init__(
        self, texts: Mapping[str, bytes], counts: Sequence[Tuple[str, Pattern[bytes]]], tail_bytes: int
    ) -> None:
        self._wanted, self._counts = dict(texts), counts
        self._rest = b""
        self._tail_bytes = tail_bytes
        self._mark: Optional[bytes] = None
        self.marked = False
        self.found: List[str] = []
        self.numbers: Dict[str, int] = {}
        self.tail = b""

    def feed(self, piece: bytes) -> None:
        """The next bytes."""
        if self._tail_bytes:
            self.tail = (self.tail + piece[-self._tail_bytes :])[-self._tail_bytes :]
        block = self._rest + piece
        end = block.rfind(b"\n") + 1
        if not end and len(block) > LINE_MAX_BYTES:
            end = len(block)
        self._rest = block[end:]
        self._search(block[:end])

    def end(self) -> None:
        """No more bytes."""
        self._search(self._rest)
        self._rest = b""

    def expect(self, text: Optional[str]) -> None:
        """What follows is of another step: `marked` tells from now on whether this text was in it."""
        self.end()
        self._mark, self.marked = None if text is None else text.encode(), False

    def _search(self, block: bytes) -> None:
        if not block:
            return
        if self._mark is not None and self._mark in block:
            self.marked = True
        for text in [text for text, wanted in self._wanted.items() if wanted in block]:
            self.found.append(text)
            del self._wanted[text]
        for name, pattern in self._counts:
            groups = [match.group(1) for match in pattern.finditer(block)] if pattern.groups else []
            numbers = [digits for digits in groups if digits is not None and digits.isdigit()]
            if numbers and len(numbers[-1]) <= COUNT_DIGITS_MAX:
                self.numbers[name] = int(numbers[-1])


class Sought(NamedTuple):
    """What is searched for in the streams of a kind of payload: the bytes of each text, compiled counts."""

    stdout: Mapping[str, bytes]
    stderr: Mapping[str, bytes]
    counts: Tuple[Tuple[str, Pattern[bytes]], ...]


@functools.lru_cache(maxsize=64)
def _sought(kind: Kind) -> Sought:
    texts: Dict[str, Dict[str, bytes]] = {"stdout": {}, "stderr": {}}
    for pattern in (*kind.patterns, *([kind.marker] if kind.marker is not None else [])):
        texts[pattern.where][pattern.text] = pattern.text.encode()
    counts = [count for count in (kind.events_read, kind.events_written) if count is not None]
    compiled = tuple((count, re.compile(count.encode(), re.MULTILINE)) for count in counts)
    return Sought(texts["stdout"], texts["stderr"], compiled)


class PayloadScan:
    """Both streams of one payload."""

    def __init__(self, kind: Kind) -> None:
        self._kind, sought = kind, _sought(kind)
        self.streams = {
            "stdout": StreamScan(sought.stdout, sought.counts, 0),
            "stderr": StreamScan(sought.stderr, (), 4 * TAIL_CHARACTERS),
        }

    def findings(self, markers: Tuple[Optional[bool], ...] = ()) -> Findings:
        """The facts, once both streams have ended. `markers`: of the steps that ran, if the payload has several."""
        kind = self._kind
        numbers = self.streams["stdout"].numbers
        marker = None
        if kind.marker is not None:
            marker = kind.marker.text in self.streams[kind.marker.where].found
        names = {p.name for p in kind.patterns if p.text in self.streams[p.where].found}
        tail = self.streams["stderr"].tail.decode("utf-8", "replace")
        return Findings(
            marker,
            tuple(sorted(names)),
            numbers.get(kind.events_read) if kind.events_read is not None else None,
            numbers.get(kind.events_written) if kind.events_written is not None else None,
            escape(tail, TAIL_CHARACTERS),
            markers,
        )
