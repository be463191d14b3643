"""Seeds on a copy of the tree in which a known flaw is brought back: what would the checkers say of it?

The flaws are files of the tests (`tests/mutants/NAME.yaml`); this knows their form and none of their names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

COPIED = ("pilot", "prodsys_core", "simulators")
DIRECTORY = "tests/mutants"
EXIT_USAGE = 2


def list_mutants(root: Path) -> int:
    """Print the name of each known flaw and what it breaks, a line each. Returns the exit code."""
    files = sorted((root / DIRECTORY).glob("*.yaml"))
    for path in files:
        print(f"{path.stem}\t{_read(path)['breaks']}")
    if not files:
        print(f"simsite: no mutants in {root / DIRECTORY}: they come with a clone", file=sys.stderr)
    return 0 if files else EXIT_USAGE


def run_mutated(root: Path, name: str, seeds: Sequence[int], workers: int) -> int:
    """Run the seeds with this flaw; returns the exit code of `simsite fuzz` there (1: a checker has found it)."""
    path = root / DIRECTORY / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        print(f"simsite: --mutant {name!a}: unknown, see simsite fuzz --list-mutants", file=sys.stderr)
        return EXIT_USAGE
    flaw = _read(path)
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        tree = Path(directory)
        copy_parts(root, tree, COPIED)
        if not bring_back(tree, flaw["file"], flaw["find"], flaw["replace"]):
            print(
                f"simsite: --mutant {name}: its text does not stand once in {flaw['file']}", file=sys.stderr
            )
            return EXIT_USAGE
        also = tree / "seeds"
        also.write_text("".join(f"{seed}\n" for seed in seeds))
        words = [
            sys.executable,
            "-m",
            "simulators.cli",
            "fuzz",
            "--also",
            str(also),
            "--workers",
            str(workers),
        ]
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(words, cwd=tree, env=environment, check=False).returncode


def copy_parts(root: Path, tree: Path, parts: Iterable[str]) -> None:
    """Copy these files and folders of a clone."""
    for part in parts:
        source = root / part
        if source.is_dir():
            shutil.copytree(source, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, tree / part)


def bring_back(tree: Path, file: str, find: str, replace: str) -> bool:
    """Put a flaw into a copy; False (nothing is changed) where its text does not stand exactly once in the file."""
    path = tree / file
    text = path.read_text() if path.is_file() else ""
    if text.count(find) != 1:
        return False
    path.write_text(text.replace(find, replace))
    return True


def _read(path: Path) -> Mapping[str, str]:
    found: Mapping[str, str] = yaml.safe_load(path.read_text())
    return found
