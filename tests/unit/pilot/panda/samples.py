"""Captured pairs of real PanDA servers, read whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parents[3] / "data/panda-samples/real"


@dataclass(frozen=True)
class Sample:
    """One captured pair: request path, HTTP status and body of the answer."""

    name: str
    path: str
    status: int
    body: bytes


def load(name: str) -> Sample:
    """The sample whose file name starts with this id."""
    (found,) = DIRECTORY.glob(f"{name}_*.txt")
    head, _, answer = found.read_bytes().partition(b"<<< RESPONSE")
    request = head.partition(b">>> REQUEST\n")[2].decode(errors="replace")
    lines = answer.split(b"\n\n", 1)
    status = int(lines[0].split(b"HTTP/1.1 ", 1)[1][:3])
    return Sample(found.stem, request.split()[1], status, lines[1].strip(b"\n"))
