"""Every command of docs/operations/simulated-site.md, in its order, against a real simulated site."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs/operations/simulated-site.md"
LIMIT_S = 120.0
BETWEEN_S = 0.3


def commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines()]


class Shell:
    """One user's shell: exports, one background job, commands that are repeated until they say something."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.background: subprocess.Popen[bytes] | None = None
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(directory),
            "PWD": str(directory),
            "TMPDIR": str(directory),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def give(self, line: str) -> None:
        command, _, mark = line.partition("  #")
        kind, _, wanted = mark.strip().partition(": ")
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").strip().partition("=")
            self.environment[name] = value.replace("$PWD", str(self.directory))
        elif command.endswith("&"):
            words = ["bash", "-c", f"exec {command.removesuffix('&')}"]
            self.background = subprocess.Popen(words, cwd=self.directory, env=self.environment)
        elif command.strip() == "kill %1":
            assert self.background is not None
            self.background.send_signal(signal.SIGTERM)
            assert self.background.wait(60) == 0
        elif kind == "until":
            self._until(command, wanted)
        else:
            done = self._run(command)
            assert done.returncode == (int(wanted) if kind == "exit" else 0), (line, done.stdout)

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def _until(self, command: str, wanted: str) -> None:
        ends = time.monotonic() + LIMIT_S
        while wanted not in (said := self._run(command).stdout):
            assert time.monotonic() < ends, f"{command}: never said {wanted!r}: {said[-2000:]}"
            time.sleep(BETWEEN_S)  # between two questions, as a person would ask them

    def end(self) -> None:
        if self.background is not None and self.background.poll() is None:
            self._run("pilot stop -c site/pilot.yaml")
            self.background.terminate()
            self.background.wait(60)


def test_every_command_of_the_walk_through_does_what_the_page_says(tmp_path: Path) -> None:
    lines = commands()
    assert len(lines) > 15
    shell = Shell(tmp_path)
    try:
        for line in lines:
            began = time.monotonic()
            shell.give(line)
            print(f"{time.monotonic() - began:6.1f} s  {line}")
            if line.startswith("cat site/site.json"):
                mode = (tmp_path / "site/control.sock").stat().st_mode
                assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
        assert len(list((tmp_path / "site/pilot/outputs").rglob("*.root"))) == 10
    finally:
        shell.end()
    assert os.listdir(tmp_path / "site/nodes") == []
