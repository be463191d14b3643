"""Code that decides does no I/O, reads no clock and draws no random number: `python tests/purity.py` (part of lint).

Every module of `pilot` and `prodsys_core` is listed in pyproject.toml as pure or as shell; one that is in no list
fails. A pure module imports none of the banned modules and calls none of the banned names.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BANNED_MODULES = frozenset(
    "os subprocess socket time random secrets threading queue selectors shutil tempfile requests urllib logging "
    "signal sqlite3 django asyncio multiprocessing".split()
)
BANNED_CALLS = frozenset({"open", "input", "print", "exec", "eval"})
BANNED_METHODS = frozenset(
    "now utcnow today read_text read_bytes write_text write_bytes unlink mkdir rmdir rename replace_file iterdir "
    "glob rglob stat exists is_file is_dir monotonic sleep".split()
)


def modules() -> list[Path]:
    """Every module of the packages that have a pure core."""
    found = [path for name in ("pilot", "prodsys_core") for path in (ROOT / name).rglob("*.py")]
    return sorted(path.relative_to(ROOT) for path in found if path.name != "__init__.py")


def violations(path: Path) -> list[str]:
    """What a pure module does that it must not."""
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] in BANNED_MODULES and name != "urllib.parse":
                found.append(f"{path}:{node.lineno}: imports {name}")
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in BANNED_CALLS:
                found.append(f"{path}:{node.lineno}: calls {called.id}")
            elif isinstance(called, ast.Attribute) and called.attr in BANNED_METHODS:
                found.append(f"{path}:{node.lineno}: calls .{called.attr}")
    return found


def main() -> int:
    """Print every violation; 1 if there is one."""
    lists = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["edge-pilot"]
    problems: list[str] = []
    pure = 0
    for path in modules():
        is_pure = any(fnmatch(str(path), pattern) for pattern in lists["pure"])
        is_shell = any(fnmatch(str(path), pattern) for pattern in lists["shell"])
        if is_pure == is_shell:
            problems.append(
                f"{path}: stands in {'both lists' if is_pure else 'no list'} of [tool.edge-pilot]"
            )
        elif is_pure:
            pure += 1
            problems += violations(path)
    print("\n".join(problems) if problems else f"purity: {pure} pure modules of {len(modules())}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
