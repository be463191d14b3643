"""Brings each known flaw back and wants its test to fail: `python tests/run_mutants.py [NAME-PREFIX]`.

A mutant (tests/mutants/NAME.yaml) has `name`, `file`, `find` (text that stands exactly once in the file), `replace`,
`test` (pytest node id) and `breaks`. It is caught if the test passes without it and fails with it. Exit code 1 names
every survivor. The tree itself is never touched: each mutant runs in a copy.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from simulators.world.mutated import bring_back, copy_parts

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("pilot", "prodsys_core", "simulators", "bench", "tests", "pyproject.toml", "docs")
LIMIT_S = 300
PARALLEL = 2


@dataclass(frozen=True, slots=True)
class Mutant:
    """One flaw that was once there, or could be."""

    name: str
    file: str
    find: str
    replace: str
    test: str
    breaks: str


def load_mutants(directory: Path = ROOT / "tests/mutants") -> list[Mutant]:
    """All mutants by name; raises ValueError for a file that is none."""
    found = []
    for path in sorted(directory.glob("*.yaml")):
        value = yaml.safe_load(path.read_text())
        if not isinstance(value, dict) or set(value) != set(Mutant.__dataclass_fields__):
            raise ValueError(f"{path}: expected exactly the keys {', '.join(Mutant.__dataclass_fields__)}")
        if value["name"] != path.stem:
            raise ValueError(f"{path}: name is {value['name']!r}, expected {path.stem!r}")
        found.append(Mutant(**value))
    return found


def problem(mutant: Mutant) -> str | None:
    """Why a mutant cannot be applied to the tree as it is, None if it can."""
    path = ROOT / mutant.file
    if not path.exists():
        return f"{mutant.file} is not there"
    count = path.read_text().count(mutant.find)
    if count != 1:
        return f"its text stands {count} times in {mutant.file}, expected once"
    file, *_, name = mutant.test.split("::")
    if not (ROOT / file).exists():
        return f"{mutant.test} is not there"
    if not re.search(
        rf"^\s*def {re.escape(name.partition('[')[0])}\b", (ROOT / file).read_text(), re.MULTILINE
    ):
        return f"{file} has no test {name}"
    return None


def _run(tree: Path, test: str) -> tuple[int, str]:
    """Exit code of pytest (0 passed, 1 a test failed, others: it could not run) and its last words."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    return done.returncode, done.stdout[-2000:]


def judge(mutant: Mutant) -> str:
    """`caught`, or what is wrong."""
    if (wrong := problem(mutant)) is not None:
        return wrong
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        tree = Path(directory)
        copy_parts(ROOT, tree, COPIED)
        code, text = _run(tree, mutant.test)
        if code != 0:
            return f"{mutant.test} fails without it:\n{text}"
        bring_back(tree, mutant.file, mutant.find, mutant.replace)
        code, text = _run(tree, mutant.test)
        if code == 0:
            return f"survives {mutant.test}"
        return (
            "caught" if code == 1 else f"no catch: pytest ended with {code}, not with a failed test:\n{text}"
        )


def main() -> int:
    """Judge the mutants whose name starts with the argument (default: all)."""
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    mutants = [mutant for mutant in load_mutants() if mutant.name.startswith(prefix)]
    survivors = 0
    with ThreadPoolExecutor(PARALLEL) as pool:
        for mutant, verdict in zip(mutants, pool.map(judge, mutants), strict=True):
            survivors += verdict != "caught"
            print(f"{mutant.name}: {verdict}", flush=True)
    print(f"{len(mutants) - survivors} passed, {survivors} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
