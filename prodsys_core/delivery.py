"""Raw files that were brought to a site by hand, against the list of what was to be brought. Pure.

A line of the list is `PATH SIZE [ADLER32]`; a path without `/` is a name in the task's files_home.
"""

import re
from collections.abc import Mapping

from prodsys_core.catalogue import BadSource
from prodsys_core.ports import Stored

_LINE = re.compile(r"(\S+)\s+(\d{1,18})(?:\s+([0-9a-fA-F]{8}))?")


def parse_delivery(text: str, label: str, home: str) -> dict[str, Stored] | BadSource:
    """Files of a list by absolute path; blank lines and lines that begin with # are ignored."""
    listed: dict[str, Stored] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            problems.append(f"{label}:{number}: found {line[:60]!a}, expected PATH SIZE [ADLER32]")
            continue
        path = match[1] if "/" in match[1] else home + match[1]
        file = Stored(int(match[2]), match[3] and match[3].lower())
        if listed.setdefault(path, file) != file:
            problems.append(f"{label}:{number}: {match[1]!a} again with another size or checksum")
    return BadSource(tuple(problems)) if problems else listed


def delivery_problem(path: str, listed: Mapping[str, Stored], seen: Stored | str) -> str:
    """What is wrong with a task's file, "" if nothing. `seen`: the file at the site, or why there is none to see."""
    wanted = listed.get(path)
    if wanted is None:
        return "missing: not in the delivery list"
    if isinstance(seen, str):
        return seen
    if seen.size != wanted.size:
        word = "short" if seen.size < wanted.size else "too long"
        return f"{word}: {seen.size} bytes, listed with {wanted.size}"
    if None not in (seen.adler32, wanted.adler32) and seen.adler32 != wanted.adler32:
        return f"damaged: adler32 {seen.adler32}, listed with {wanted.adler32}"
    return ""
