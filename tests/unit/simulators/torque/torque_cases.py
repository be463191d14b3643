"""The captured Torque cases, the scripts they used, and the one normalisation of what cannot repeat."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FIXTURES = Path(__file__).parents[3] / "data" / "torque-fixtures"


@dataclass(frozen=True, slots=True)
class Case:
    """A command as it was typed and what it gave."""

    system: str
    name: str
    cmd: str
    stdout: str
    stderr: str
    rc: int


def load(system: str) -> dict[str, Case]:
    """Cases of one captured system by name."""
    rows = json.loads((FIXTURES / "index.json").read_text())
    return {row["name"]: Case(**row) for row in rows if row["system"] == system}


# Everything that may differ, in one list: each pattern's group is what is not compared.
NORMALISED = (
    ("time", r"((?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d 20\d\d)"),
    ("time", r"Job started on ([A-Z][a-z]{2} [A-Z][a-z]{2} \d\d at \d\d:\d\d)"),
    ("time", r"(?:ctime|mtime|qtime|etime|start_time|comp_time)>(\d{10})<"),
    ("time", r"\n    mtime = (\d{10})\n"),
    ("time", r"rectime=(\d{10})"),
    ("time", r"(?:Walltime\.Remaining = |<Remaining>)(\d+)"),
    ("time", r"(?:total_runtime = |<total_runtime>)(\d+\.\d{6})"),
    (
        "time",
        r"(?:resources_used\.walltime = |<resources_used><cput>[^<]*</cput><vmem>\w*</vmem><walltime>)([\d:]+)",
    ),
    ("time", r"\n(?:real|user|sys)\t(\d+m\d+\.\d{3}s)"),
    ("time", r" R  (\d\d:\d\d:\d\d)"),
    ("pid", r"(?:session_id = |<session_id>)(\d+)"),
    ("pid", r"alice +normal +\w+ +(\d+) +\d+ +\d+ +-- "),
    ("accounting", r"resources_used\.(?:mem|vmem) = (\d+kb)"),
    ("accounting", r"<vmem>(\d+kb)</vmem>"),
    ("accounting", r"<mem>(\d+kb)</mem>"),
    ("accounting", r"net_counter = (\d+ \d+ \d+)"),
    ("host", r"(?:idletime|totmem|availmem|physmem|loadave|nusers|nsessions)=([\d.]+(?:kb)?)"),
    ("host", r"sessions=((?:\d+ ?)+),"),
)
_PATTERNS = tuple((word, re.compile(pattern)) for word, pattern in NORMALISED)


def spans(text: str) -> list[tuple[int, int, str]]:
    """Where the text has something that is not compared, in order and without overlap."""
    found = sorted((*match.span(1), word) for word, pattern in _PATTERNS for match in pattern.finditer(text))
    kept: list[tuple[int, int, str]] = []
    for start, end, word in found:
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, word))
    return kept


def normalise(text: str) -> str:
    """The text with each such part as its kind."""
    done, at = [], 0
    for start, end, word in spans(text):
        done += [text[at:start], f"<{word}>"]
        at = end
    return "".join([*done, text[at:]])


HEAD = (
    "#!/bin/bash\n#PBS -l nodes=16:ppn=32:xe -l walltime=00:10:00\n"
    "#PBS -l flags=commtransparent\n#PBS -j oe -m n\n"
)
TEN_MINUTES = "#PBS -l nodes=1:ppn=1,walltime=00:10:00\n#PBS -j oe\n"
SCRIPTS = {
    "job.pbs": HEAD + "#PBS -N mjp_512\nsleep 15\nexit 3\n",
    "job40.pbs": HEAD + "#PBS -N mjp_512\nsleep 40\n",
    "small.pbs": "#PBS -l nodes=1:ppn=1,walltime=00:05:00\n#PBS -j oe\n#PBS -N small\nsleep 1\n",
    "badopt.pbs": "#PBS -\nsleep 1\n",
    "empty.pbs": "",
    "trap.pbs": TEN_MINUTES + "#PBS -N trapjob\nsleep 99\n",
    "notrap.pbs": TEN_MINUTES + "#PBS -N ignterm\nsleep 99\n",
    "kill.pbs": TEN_MINUTES + "sleep 1\n",
    "wall.pbs": "#PBS -l nodes=1:ppn=1,walltime=00:00:05\n#PBS -j oe\n#PBS -N wallexc\nsleep 99\n",
    "badshell.pbs": "#!/nosuch\n#PBS -l nodes=1:ppn=1,walltime=00:00:05\n",
    "bw.pbs": (
        "#PBS -l nodes=16:ppn=32:xe,walltime=00:30:00,flags=commtransparent\n"
        "#PBS -j oe\n#PBS -o /dev/null\n#PBS -N mjp\nsleep 600\n"
    ),
}
