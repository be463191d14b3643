"""Makes the one file that travels to compute nodes: a zipapp of the node side, named by its own checksum."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import zipfile
from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parents[1]
# Modules of pilot/caldb that run on a node; of pilot/multijob/node all do.
CALDB_MODULES = ("plan", "prctl", "query", "server", "unpack")
# Packages whose __init__ is for the edge (or says nothing) are empty inside the file.
EMPTY_PACKAGES = ("pilot", "pilot/caldb", "pilot/multijob", "pilot/multijob/node")

_MAIN = "import sys\nfrom pilot.multijob.node.entry import main\nsys.exit(main())\n"
# The first time that a zip can name: the same sources make the same file.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def node_sources() -> dict[str, bytes]:
    """Path inside the file -> content of every module that runs on a node."""
    node = PACKAGE_DIR / "multijob" / "node"
    sources = {f"{package}/__init__.py": b"" for package in EMPTY_PACKAGES}
    for path in node.glob("*.py"):
        if path.name != "__init__.py":
            sources[f"pilot/multijob/node/{path.name}"] = path.read_bytes()
    for name in CALDB_MODULES:
        sources[f"pilot/caldb/{name}.py"] = (PACKAGE_DIR / "caldb" / f"{name}.py").read_bytes()
    sources["__main__.py"] = _MAIN.encode()
    return sources


def render_agent_file() -> bytes:
    """The zipapp's bytes; the same sources give the same bytes. Stored, not deflated: zlib versions differ."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(node_sources().items()):
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
