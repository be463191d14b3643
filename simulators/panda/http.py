"""The simulated PanDA server over real HTTP on loopback: `python -m simulators.panda.http --ready FILE ...`.

Both dialects on one port. Roles and certificates are not asked for over plain HTTP (said in the ready file). A
request that was taken is worked to its end although the client has gone, as real servers do.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simulators.panda import legacy, v1
from simulators.panda.model import PandaModel, PandaTimes

BODY_MAX_BYTES = 256 * 1024 * 1024
ADVANCE_EVERY_S = 0.2
FAULTS = ("lose-next-answer", "500", "html", "slow")


@dataclass(slots=True)
class Fault:
    """Spoil the next `count` calls whose path matches. `slow` waits `seconds`."""

    name: str
    count: int
    path: re.Pattern[str]
    seconds: float = 1.0


@dataclass(slots=True)
class PandaServer:
    """Model, lock, faults and access log of one server process."""

    model: PandaModel
    access_log: Path | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    faults: list[Fault] = field(default_factory=list)

    def advance(self) -> None:
        """Bring the model to now (monotonic seconds of this process)."""
        with self.lock:
            self.model.advance(time.monotonic())

    def table(self) -> dict[str, Any]:
        """Every job with all that the server knows, for readers of evidence."""
        with self.lock:
            now_s, now_utc = time.monotonic(), time.time()
            return {
                "updates_received": self.model.updates_received,
                "jobs": [
                    {
                        "panda_id": job.panda_id,
                        "status": job.status,
                        "attempt_nr": job.attempt_nr,
                        "job_name": job.attributes.get("jobName"),
                        "attributes": {k: v for k, v in job.attributes.items() if v is not None},
                        "files": job.files,
                        "report": job.report,
                        "updates": job.updates,
                        "history": [[round(now_utc - (now_s - at), 3), status] for at, status in job.history],
                    }
                    for job in self.model.jobs.values()
                ],
            }

    def fault_for(self, path: str) -> Fault | None:
        """The fault that spoils this call, counted down."""
        with self.lock:
            for fault in self.faults:
                if fault.count > 0 and fault.path.search(path):
                    fault.count -= 1
                    return fault
        return None

    def add_fault(self, body: Mapping[str, Any]) -> str | None:
        """Take an order to spoil calls; a text if it is none."""
        if body.get("name") not in FAULTS:
            return f"name: found {body.get('name')!r:.60}, expected one of {', '.join(FAULTS)}"
        pattern = re.compile(str(body.get("path", ".*")))
        fault = Fault(body["name"], int(body.get("count", 1)), pattern, float(body.get("seconds", 1.0)))
        with self.lock:
            self.faults.append(fault)
        return None

    def note(self, line: str) -> None:
        """One line of the access log."""
        if self.access_log is not None:
            with self.lock, open(self.access_log, "a") as log:
                log.write(line + "\n")


class PandaHandler(BaseHTTPRequestHandler):
    """One connection. `server.panda` is set by `serve`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """A call with a query string."""
        self._serve(b"")

    def do_POST(self) -> None:
        """A call with a body."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_MAX_BYTES:
            self._reply(413, "body too large")
            return
        self._serve(self.rfile.read(length))

    def log_message(self, format: str, *args: Any) -> None:
        """The access log is written by `_serve`."""

    def _serve(self, body: bytes) -> None:
        start_s = time.monotonic()
        panda: PandaServer = self.server.panda  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        fault = panda.fault_for(parts.path)
        if fault is not None and fault.name in ("500", "html"):
            page = "<html><body>Bad Gateway</body></html>"
            self._reply(500 if fault.name == "500" else 200, page if fault.name == "html" else "fault")
            return
        if fault is not None and fault.name == "slow":
            threading.Event().wait(fault.seconds)
        panda.advance()
        status, text = self._answer(panda, parts.path, parts.query, body)
        took_ms = (time.monotonic() - start_s) * 1000
        shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in parts.path[:200])
        panda.note(
            f"{time.time():.3f} {self.command} {shown} {status} {len(body)} {len(text)} {took_ms:.1f}ms"
        )
        if fault is not None and fault.name == "lose-next-answer":
            self.close_connection = True
            return
        self._reply(status, text)

    def _answer(self, panda: PandaServer, path: str, query: str, body: bytes) -> tuple[int, str]:
        fields = path.strip("/").split("/")
        if fields == ["sim", "table"]:
            return 200, json.dumps(panda.table())
        if fields == ["sim", "fault"]:
            problem = panda.add_fault(json.loads(body))
            return (400, problem) if problem else (200, "ok")
        if len(fields) == 3 and fields[:2] == ["server", "panda"]:
            return self._legacy(panda, fields[2], query, body)
        if len(fields) == 4 and fields[:2] == ["api", "v1"]:
            return self._v1(panda, f"{fields[2]}/{fields[3]}", query, body)
        return 403, f"ERROR : method {fields[-1][:60]} is forbidden"

    def _legacy(self, panda: PandaServer, method: str, query: str, body: bytes) -> tuple[int, str]:
        if self.headers.get("Content-Type") == "application/json":
            try:
                parameters = json.loads(gzip.decompress(body))
            except (OSError, ValueError) as error:
                return 500, str(error)
        else:
            text = body.decode("utf-8", "replace") if self.command == "POST" else query
            parameters = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
        call = legacy.Call(parameters, "application/json" in self.headers.get("Accept", ""))
        with panda.lock:
            reply = legacy.answer(panda.model, method, call)
        return reply.status, reply.text

    def _v1(self, panda: PandaServer, call: str, query: str, body: bytes) -> tuple[int, str]:
        arguments: dict[str, Any] = {
            name: values if len(values) > 1 else values[0] for name, values in parse_qs(query).items()
        }
        if self.command == "POST" and body:
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            try:
                arguments = json.loads(body)
            except ValueError as error:
                return 500, f"ERROR : received invalid JSON {error}"
        with panda.lock:
            found = v1.answer(panda.model, call, v1.Request(self.command, arguments))
        if found is None:
            return 403, f"ERROR : method {call[:60]} is forbidden"
        headers = (self.headers.get("Accept", ""), self.headers.get("Content-Type", ""))
        wants_json = any("application/json" in header for header in headers)
        return 200, json.dumps(found) if wants_json else str(found)

    def _reply(self, status: int, text: str) -> None:
        content = text.encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


class PandaHttpServer(ThreadingHTTPServer):
    """Threads end with the process; many may connect at once."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], panda: PandaServer) -> None:
        self.panda = panda
        super().__init__(address, PandaHandler)


def load_times(path: Path | None) -> PandaTimes:
    """Times of the model from a JSON file with the names of PandaTimes; raises ValueError."""
    if path is None:
        return PandaTimes()
    values = json.loads(path.read_text())
    unknown = set(values) - set(PandaTimes.__dataclass_fields__)
    if unknown:
        raise ValueError(f"{path}: unknown keys {', '.join(sorted(unknown))}")
    return PandaTimes(**{name: float(value) for name, value in values.items()})


def write_json(path: Path, value: Any) -> None:
    """Write by temp name and rename."""
    private = path.with_name(f".{path.name}.{os.getpid()}")
    private.write_text(json.dumps(value))
    os.rename(private, path)


def serve(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; then write the table."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        model = PandaModel(load_times(arguments.config))
        panda = PandaServer(model, arguments.access_log)
        server = PandaHttpServer((arguments.host, arguments.port), panda)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        print(f"panda: {arguments.host}:{arguments.port}: {reason}", file=sys.stderr)
        return 1
    port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    url = f"http://{arguments.host}:{port}"
    write_json(arguments.ready, {"pid": os.getpid(), "port": port, "url": url, "roles": "not asked for"})
    while not stop.wait(ADVANCE_EVERY_S):
        panda.advance()
    server.shutdown()
    server.server_close()
    if arguments.dump is not None:
        write_json(arguments.dump, panda.table())
    arguments.ready.unlink(missing_ok=True)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="simulators.panda.http", description="A PanDA server on loopback.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (loopback)")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument(
        "--ready", type=Path, required=True, help="written when requests are served: pid, port, url"
    )
    parser.add_argument("--dump", type=Path, help="the whole job table, written at the end")
    parser.add_argument("--config", type=Path, help="JSON file with times in seconds (PandaTimes)")
    parser.add_argument("--access-log", type=Path, help="one line a request")
    return serve(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
