"""Captured pairs of real PanDA servers as requests and replies, and the one normalisation of what cannot repeat."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simulators.panda.dispatch import HttpRequest

DIRECTORY = Path(__file__).parents[3] / "data/panda-samples/real"
# Taken on the second server within the same seconds; ids and dates give this place.
MOVED = {"L97": "N35", "L98": "N35", "L99": "N35"}


@dataclass(frozen=True)
class Capture:
    """One pair. `at_s`: second of the reply in epoch time; `server`: version that answered."""

    name: str
    server: str
    request: HttpRequest
    at_s: float
    status: int
    content_type: str
    body: str

    @property
    def id(self) -> str:
        """L46, N64b..."""
        return self.name.partition("_")[0]


def load(path: Path) -> Capture:
    """One file."""
    head, _, answer = path.read_bytes().partition(b"<<< RESPONSE (de-chunked)\n")
    text = head.partition(b">>> REQUEST\n")[2]
    raw = ast.literal_eval(text.decode().strip()) if text.startswith(b"b'") else text
    lines, _, body = raw.partition(b"\r\n\r\n")
    first, *headers = lines.decode().split("\r\n")
    method, target, _ = first.split(" ")
    parts = urlsplit(target)
    fields = dict(line.split(": ", 1) for line in headers)
    request = HttpRequest(
        method,
        parts.path,
        parts.query,
        {name.lower(): value for name, value in fields.items()},
        body.strip(b"\r\n"),
    )
    top, _, content = answer.decode("utf-8").replace("\r\n", "\n").partition("\n\n")
    reply = dict(line.split(": ", 1) for line in top.splitlines()[1:])
    return Capture(
        path.stem,
        re.search(rb"panda-server ([\d.]+)", head)[1].decode(),
        request,
        parsedate_to_datetime(reply["Date"]).timestamp(),
        int(top.split(" ")[1]),
        reply["Content-Type"],
        content.removesuffix("\n"),
    )


def in_order() -> list[Capture]:
    """All captures in the order in which they were taken."""
    found = [load(path) for path in sorted(DIRECTORY.glob("*.txt"))]
    return sorted(found, key=lambda item: (MOVED.get(item.id, item.id), item.id in MOVED, item.id))


def jobs_in(text: str) -> Iterator[dict[str, Any]]:
    """Job dictionaries of a reply in any of the four encodings."""
    if text.startswith("{'"):
        value = ast.literal_eval(text)
    elif text.startswith("{"):
        value = json.loads(text)
    else:
        value = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
    value = value.get("data") or value
    if not isinstance(value, dict):
        return
    jobs = value.get("jobs", [value] if "PandaID" in value else [])
    yield from json.loads(jobs) if isinstance(jobs, str) else jobs


# What a second run of the same server would say otherwise, by name and pattern, and the order in which the database
# gives the rows of a job's files. Nothing else is left out.
VARYING = (
    ("a time", re.compile(r'\{"__datetime__": "[0-9T:.-]+"\}')),
    ("a row number", re.compile(r'"row_ID": \d+')),
)


def normalise(text: str) -> str:
    """The text with every varying part replaced by its name."""
    if '"Files": [' in text:
        value = json.loads(text)
        for record in value["data"]:
            if record is not None:
                record["Files"].sort(key=lambda entry: entry["lfn"])
        text = json.dumps(value)
    for name, pattern in VARYING:
        text = pattern.sub(f"<{name}>", text)
    return text
