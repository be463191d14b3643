"""What travels to a compute node: one file, standard library of Python 3.8 only, nothing of the edge."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pilot.multijob.agentfile import build_agent_file, node_sources, render_agent_file

# Costly to import (file calls beside those of an empty interpreter, docs/decisions/0101): not on a node.
COSTLY = {
    "urllib.request",
    "http.client",
    "email",
    "dataclasses",
    "tempfile",
    "logging",
    "asyncio",
}
SOURCES = sorted(node_sources().items())


@pytest.mark.parametrize(("name", "content"), SOURCES, ids=[name for name, _ in SOURCES])
def test_python_38_syntax_and_standard_library_only(name, content):
    tree = ast.parse(content, name, feature_version=(3, 8))
    own = {name[: -len(".py")].replace("/", ".") for name in node_sources()}
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Match)
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            # `from pilot.caldb import plan` names a module
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = whole if set(whole) <= own else [str(node.module)]
        else:
            continue
        for module in modules:
            assert module in own or module.split(".")[0] in sys.stdlib_module_names, module
            assert module not in COSTLY, module


def test_the_same_sources_make_the_same_file(tmp_path):
    first = build_agent_file(tmp_path)
    before = first.stat()
    assert build_agent_file(tmp_path) == first
    assert first.stat().st_mtime_ns == before.st_mtime_ns
    assert first.read_bytes() == render_agent_file()
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_a_damaged_file_is_replaced(tmp_path):
    path = build_agent_file(tmp_path)
    path.write_bytes(b"torn")
    assert build_agent_file(tmp_path).read_bytes() == render_agent_file()


def test_packages_inside_are_empty_and_nothing_of_the_edge_is_there():
    with zipfile.ZipFile(io.BytesIO(render_agent_file())) as archive:
        assert archive.namelist() == ["__main__.py", "__main__.pyc"]
        tree = ast.parse(archive.read("__main__.py"), feature_version=(3, 8))
    [texts] = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    packages = {name for name, text in texts.items() if text is None}
    assert packages == {"pilot", "pilot.caldb", "pilot.multijob", "pilot.multijob.node"}
    assert {name.rpartition(".")[0] for name in texts if name not in packages} == {
        "pilot.caldb",
        "pilot.multijob.node",
    }
    assert "pilot.caldb.snapshot" not in texts


def _with(path: Path, changed: str, change: Callable[[bytes], bytes]) -> Path:
    """A copy of the agent file with one member changed."""
    copy = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name == changed else content)
    return copy


def _run(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(path), "agent", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_interpreter_of_this_version_compiles_no_text(tmp_path):
    done = _run(_with(build_agent_file(tmp_path), "__main__.py", lambda _: b"raise SystemExit('compiled')"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "--bundle" in done.stdout


def test_an_interpreter_of_another_version_passes_the_compiled_code_over(tmp_path):
    done = _run(_with(build_agent_file(tmp_path), "__main__.pyc", lambda code: b"\0\0\r\n" + code[4:]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "--bundle" in done.stdout


def test_folder_holds_no_edge_code():
    names = {path.name for path in Path("pilot/multijob/node").glob("*.py")} - {"__init__.py"}
    assert {f"pilot/multijob/node/{name}" for name in names} <= set(node_sources())
