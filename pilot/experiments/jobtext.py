"""Job parameters as words, never as a shell's text (docs/architecture/files.md section 4)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_WORK = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SUM = re.compile(r"(?:([0-9]{1,18})(?::([0-9A-Fa-f]{8}))?)?")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Blanks, or a part of a word: plain, or between single quotes.
_PIECE = re.compile(r"([ \t\r\n]+)|([^ \t\r\n'\"\\]+)|'([^']*)'")
TEXT_MAX = 65536
WORDS_MAX = 4096
# Texts remembered: a job's is read several times between its fetch and its bundle. At most 64 MiB, commonly 1.
REMEMBERED = 1024


class BadJobText(Exception):
    """The job parameters cannot be run; the text says why without repeating them."""


@dataclass(frozen=True, slots=True)
class InputSum:
    """What the job says of one input: size in bytes and adler32 as 8 hex digits, None: it does not."""

    size: int | None = None
    adler32: str | None = None


@dataclass(frozen=True, slots=True)
class JobText:
    """What the job parameters say. `n_events` None: unknown. `sums`: one for each of `inputs`."""

    environment: Mapping[str, str]
    argv: tuple[str, ...]
    work: str | None
    n_events: int | None
    inputs: tuple[str, ...]
    sums: tuple[InputSum, ...] = ()


@lru_cache(REMEMBERED)
def parse_job_text(text: str) -> JobText:
    """Split job parameters; raises BadJobText. What it gives is shared: nobody changes it."""
    if len(text) > TEXT_MAX:
        raise BadJobText(f"job parameters have {len(text)} characters, at most {TEXT_MAX}")
    if _CONTROL.search(text):
        raise BadJobText("job parameters hold a control character or a line break")
    words = _split(text)
    if len(words) > WORDS_MAX:
        raise BadJobText(f"job parameters have {len(words)} words, at most {WORDS_MAX}")
    environment: dict[str, str] = {}
    while words and _NAME.match(words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    if not words:
        raise BadJobText("job parameters name no command")
    inputs = _inputs(environment)
    sums = _sums(environment, len(inputs))
    return JobText(environment, tuple(words), _work(environment), _events(environment), inputs, sums)


def _split(text: str) -> list[str]:
    """Words as `shlex.split` makes them; by hand where only single quotes are used, which takes a tenth of the time."""
    words: list[str] = []
    word: str | None = None
    at = 0
    while at < len(text):
        found = _PIECE.match(text, at)
        if found is None:
            return _split_slowly(text)
        blank, plain, quoted = found.groups()
        if blank is None:
            word = (word or "") + (plain if quoted is None else quoted)
        elif word is not None:
            words.append(word)
            word = None
        at = found.end()
    return words if word is None else [*words, word]


def _split_slowly(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadJobText(f"job parameters cannot be split into words: {error}") from error


def _work(environment: Mapping[str, str]) -> str | None:
    work = environment.get("PRODSYS_WORK")
    if work is not None and not _WORK.fullmatch(work):
        raise BadJobText("PRODSYS_WORK is not 1 to 100 letters, digits, '.', '_' or '-'")
    return work


def _events(environment: Mapping[str, str]) -> int | None:
    text = environment.get("PRODSYS_NEVENTS", "-1")
    try:
        count = int(text)
    except ValueError as error:
        raise BadJobText(f"PRODSYS_NEVENTS is {text[:40]!a}, expected an integer") from error
    return count if count >= 0 else None


def _inputs(environment: Mapping[str, str]) -> tuple[str, ...]:
    paths = tuple(path for path in environment.get("PRODSYS_INPUTS", "").split(":") if path)
    for path in paths:
        if not path.startswith("/") or "/../" in path:
            raise BadJobText(f"input {path[:120]!a} is not an absolute path without '..'")
    return paths


def _sums(environment: Mapping[str, str], count: int) -> tuple[InputSum, ...]:
    text = environment.get("PRODSYS_INPUT_SUMS")
    if text is None:
        return (InputSum(),) * count
    found = [_SUM.fullmatch(word) for word in text.split(",")]
    if len(found) != count or not all(found):
        expected = "SIZE, SIZE:ADLER32 or nothing for each of PRODSYS_INPUTS, joined by ','"
        raise BadJobText(f"PRODSYS_INPUT_SUMS is {text[:120]!a}, expected {expected}")
    pairs = [match.groups() for match in found if match is not None]
    return tuple(InputSum(int(size) if size else None, sum_ and sum_.lower()) for size, sum_ in pairs)
