"""Stand-ins of the world of a full machine, slow on order: `python -m bench.standins DIRECTORY`.

A PanDA server that has no jobs and takes every update; `port` and `taken` (updates so far) are written into DIRECTORY.
The time before an answer stands in the file `http_s`, it may be changed at any time.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def delay_s(directory: Path, name: str) -> float:
    """What a file of orders says; 0 without it."""
    try:
        return float((directory / name).read_text() or 0)
    except (OSError, ValueError):
        return 0.0


def taken(directory: Path) -> int:
    """Updates that the server has taken so far."""
    try:
        return int((directory / "taken").read_text() or 0)
    except (OSError, ValueError):
        return 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory = Path()
    lock = threading.Lock()
    taken = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self._data(body))

    def do_GET(self) -> None:
        ids = self.path.partition("?")[2].split("&")
        self._answer([{"status": "running", "command": ""} for _ in ids])

    def _data(self, body: dict[str, Any]) -> Any:
        if "job_list" not in body:
            return {"StatusCode": 20, "jobs": []}
        with self.lock:
            type(self).taken += len(body["job_list"])
            (self.directory / "taken").write_text(str(type(self).taken))
        return [{"success": True, "message": "", "data": {"StatusCode": 0}} for _ in body["job_list"]]

    def _answer(self, data: Any) -> None:
        time.sleep(delay_s(self.directory, "http_s"))
        content = json.dumps({"success": True, "message": "", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


def serve(directory: Path) -> None:
    """Serve until the process ends."""
    handler = type("Handler", (_Handler,), {"directory": directory})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    (directory / ".port").write_text(str(server.server_address[1]))
    os.rename(directory / ".port", directory / "port")
    server.serve_forever()


def write_commands(directory: Path) -> None:
    """qstat, qsub and qdel: qstat prints `listing.xml` and notes each call, qsub refuses; both after a while.

    Nobody waits for longer than a second when the directory is gone: the measurement is over.
    """
    wait = (
        f"left=$(cat {directory}/$1 2>/dev/null || echo 0)\nleft=${{left%.*}}\n"
        f'while [ "${{left:-0}}" -gt 0 ] && [ -d {directory} ]; do sleep 1; left=$((left - 1)); done'
    )
    texts = {
        "qstat": f"set -- qstat_s\ndate +%s.%N >> {directory}/listings\n{wait}\ncat {directory}/listing.xml\n",
        "qsub": f"set -- qsub_s\n{wait}\necho 'qsub: Unauthorized Request' >&2\nexit 159\n",
        "qdel": "exit 0\n",
    }
    for name, text in texts.items():
        path = directory / name
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o700)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
