"""Writes the commands as real files into a folder that goes on PATH."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

VERBS = (
    "qsub",
    "qstat",
    "qdel",
    "qselect",
    "qhold",
    "qrls",
    "qalter",
    "qmove",
    "qsig",
    "qrerun",
    "qrun",
    "pbsnodes",
    "showbf",
    "aprun",
)
_ROOT = Path(__file__).resolve().parents[2]


def write_executables(bin_dir: str, runtime: str, server_name: str = "sim") -> tuple[str, ...]:
    """Write one executable for each command, bound to the server of `runtime`; returns their paths.

    Each is a shell line that turns into this interpreter, without site packages: starting takes some 10 ms.
    Paths with blanks are fine; a quote in one is refused with ValueError.
    """
    python = os.path.realpath(sys.executable)
    for path in (python, runtime, str(_ROOT)):
        if "'" in path or "\n" in path:
            raise ValueError(
                f"a path with a quote or a line break cannot be written into a command: {path!r}"
            )
    os.makedirs(bin_dir, exist_ok=True)
    written = []
    for verb in VERBS:
        path = os.path.join(bin_dir, verb)
        text = (
            "#!/bin/sh\n"
            f"'''exec' {shlex.quote(python)} -I -S \"$0\" \"$@\" # '''\n"
            "import sys\n"
            f"sys.path.insert(0, {str(_ROOT)!r})\n"
            "from simulators.torque.client import main\n"
            f"sys.exit(main({verb!r}, {os.path.abspath(runtime)!r}, {server_name!r}))\n"
        )
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o755)
        os.rename(temporary, path)
        written.append(path)
    return tuple(written)
