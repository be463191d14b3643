"""Makes the one file that travels to compute nodes: a zipapp of the node side, named by its own checksum.

All modules stand as texts in its `__main__.py`, which imports from there: a zip with a file for each module is opened
again for each import, on the shared filesystem, at each start of each node. `__main__.pyc` beside it holds the same
compiled; an interpreter of another version than this one passes it over and compiles the texts itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import os
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import CodeType

PACKAGE_DIR = Path(__file__).resolve().parents[1]
# Modules of pilot/caldb that run on a node; of pilot/multijob/node all do.
CALDB_MODULES = ("keeper", "plan", "prctl", "query", "server", "sharing", "unpack")
# Packages whose __init__ is for the edge (or says nothing) have no text inside the file.
EMPTY_PACKAGES = ("pilot", "pilot/caldb", "pilot/multijob", "pilot/multijob/node")

_MAIN = '''"""Made by pilot/multijob/agentfile.py."""
import sys
from importlib.machinery import ModuleSpec
from marshal import loads

SOURCES = {
%s}


class Texts:
    """Finds and loads the modules whose texts (or their code) stand above. Packages have none."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in SOURCES:
            return None
        return ModuleSpec(name, cls, is_package=SOURCES[name] is None)

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        found = SOURCES[module.__name__]
        if isinstance(found, str):
            file = "%%s/%%s.py" %% (__file__, module.__name__.replace(".", "/"))
            found = compile(found, file, "exec")
        elif found is not None:
            found = loads(found)
        if found is not None:
            exec(found, module.__dict__)

    @staticmethod
    def get_source(name):
        found = SOURCES[name]
        return found if isinstance(found, str) else None


sys.meta_path.insert(0, Texts)
if __name__ == "__main__":
    from pilot.multijob.node.entry import main

    sys.exit(main())
'''
# The first time that a zip can name: the same sources make the same file.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def node_sources() -> dict[str, bytes]:
    """Path in the package -> content of every module that runs on a node."""
    node = PACKAGE_DIR / "multijob" / "node"
    sources: dict[str, bytes] = {}
    for path in node.glob("*.py"):
        if path.name != "__init__.py":
            sources[f"pilot/multijob/node/{path.name}"] = path.read_bytes()
    for name in CALDB_MODULES:
        sources[f"pilot/caldb/{name}.py"] = (PACKAGE_DIR / "caldb" / f"{name}.py").read_bytes()
    return sources


def _texts() -> dict[str, str | None]:
    """Name -> text of each module, None for a package."""
    texts: dict[str, str | None] = {package.replace("/", "."): None for package in EMPTY_PACKAGES}
    for path, content in node_sources().items():
        texts[path.removesuffix(".py").replace("/", ".")] = content.decode()
    return texts


def _render_main(modules: Mapping[str, str | bytes | None]) -> str:
    return _MAIN % "".join(f"    {name!r}: {found!r},\n" for name, found in sorted(modules.items()))


def _render_code(code: CodeType) -> bytes:
    """Version 2 of the format knows no references: what it writes does not depend on who else holds a string."""
    return marshal.dumps(code, 2)


def _compiled(texts: Mapping[str, str | None]) -> bytes:
    """Content of `__main__.pyc` for interpreters of this version; its source is not looked at (PEP 552)."""
    codes = {
        name: None
        if text is None
        else _render_code(compile(text, f"agent/{name.replace('.', '/')}.py", "exec", dont_inherit=True))
        for name, text in texts.items()
    }
    main = _render_main(codes)
    unchecked, no_hash = (1).to_bytes(4, "little"), bytes(8)
    code = compile(main, "agent/__main__.py", "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + unchecked + no_hash + _render_code(code)


def render_agent_file() -> bytes:
    """The zipapp's bytes; the same sources give the same bytes, with interpreters of one version.

    Stored, not deflated: zlib versions differ.
    """
    texts = _texts()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (
            ("__main__.py", _render_main(texts).encode()),
            ("__main__.pyc", _compiled(texts)),
        ):
            entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def agent_path(shared_dir: Path | str, content: bytes) -> Path:
    """Where the agent file of this content lies."""
    return Path(shared_dir) / f"agent-{hashlib.sha256(content).hexdigest()[:12]}.pyz"


def build_agent_file(shared_dir: Path | str) -> Path:
    """Write `<shared_dir>/agent-<first 12 hex of its sha256>.pyz` if it is not there yet; returns its path.

    Durable before visible. Raises OSError (an unwritable directory, a full disk).
    """
    content = render_agent_file()
    path = agent_path(shared_dir, content)
    if path.exists() and path.read_bytes() == content:
        return path
    temp = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temp.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    finally:
        temp.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return path
