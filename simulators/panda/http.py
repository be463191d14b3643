"""The simulated PanDA server over real HTTP on loopback: `python -m simulators.panda.http --ready FILE ...`.

Both dialects on one port. Roles and certificates are not asked for unless the setting `require_role` is on (the ready
file says which). A request that was taken is worked to its end although its client has gone, as real servers do.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from simulators.panda.dispatch import PLAIN, HttpReply, HttpRequest
from simulators.panda.identity import subject_of
from simulators.panda.model import PandaModel
from simulators.panda.service import PAGE, PandaServer
from simulators.panda.settings import BadSettings, Settings, parse_settings

BODY_MAX_BYTES = 256 * 1024 * 1024
ADVANCE_EVERY_S = 0.2


class PandaConnection(BaseHTTPRequestHandler):
    """One connection, kept alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    server: PandaHttpServer

    def do_GET(self) -> None:
        """A call with a query string."""
        self._serve(b"")

    def do_POST(self) -> None:
        """A call with a body."""
        length = self.headers.get("Content-Length") or "0"
        if not length.isdigit() or int(length) > BODY_MAX_BYTES:
            self.close_connection = True
            self._reply(HttpReply(413, PLAIN, "body too large"))
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return
        self._serve(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The access log is written by `_serve`."""

    def _serve(self, body: bytes) -> None:
        start_s = time.monotonic()
        service = self.server.service
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        # Whose certificate was shown is known here only: nobody can say it in a header.
        headers.pop("x-subject", None)
        if isinstance(self.connection, ssl.SSLSocket):
            headers["x-subject"] = subject_of(self.connection.getpeercert()) or ""
        request = HttpRequest(self.command, parts.path, parts.query, headers, body)
        if self.server.orders:
            self._reply(service.answer(request, trusted=True))
            return
        if service.away:
            self.close_connection = True
            return
        fault = service.fault_for(parts.path)
        reply: HttpReply | None = None
        if fault is not None and fault.name == "slow":
            threading.Event().wait(fault.seconds)
        spoilt = fault is not None and fault.name in ("500", "html")
        cut = fault is not None and fault.kill("before")
        if not cut and (fault is None or not spoilt or fault.after):
            reply = service.answer(request)
            if service.settings.per_job_s and reply.items:
                threading.Event().wait(reply.items * service.settings.per_job_s)
        if fault is not None and spoilt:
            reply = (
                HttpReply(500, PLAIN, "fault") if fault.name == "500" else HttpReply(200, "text/html", PAGE)
            )
        cut = cut or (fault is not None and (fault.name == "lose-next-answer" or fault.kill("worked")))
        if cut:
            self.close_connection = True
            reply = None
        if reply is not None:
            self._reply(reply)
        if fault is not None:
            fault.kill("answered")
        service.note(request, reply, (time.monotonic() - start_s) * 1000, fault)

    def _reply(self, reply: HttpReply) -> None:
        content = reply.text.encode()
        try:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


class PandaHttpServer(ThreadingHTTPServer):
    """Threads end with the process; many may connect at once. `orders`: no fault hits it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], service: PandaServer, orders: bool = False) -> None:
        self.service, self.orders = service, orders
        super().__init__(address, PandaConnection)

    def protect(self, tls: Mapping[str, str]) -> None:
        """Serve over TLS; callers need a certificate of the authority `ca`, proxies are taken. Raises OSError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls["cert"], tls["key"])
        context.load_verify_locations(tls["ca"])
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS
        # The handshake is the connection's own: one that stalls holds up nobody else.
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away or is refused is no error of the server; anything else is shown."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)


def load_settings(path: Path | None) -> Settings:
    """Settings of a JSON file. Raises BadSettings, OSError."""
    if path is None:
        return Settings()
    try:
        return parse_settings(json.loads(path.read_text()))
    except ValueError as error:
        raise BadSettings(f"{path}: not JSON: {error}") from error
    except BadSettings as error:
        raise BadSettings(f"{path}: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write by temp name, fsync and rename."""
    private = path.with_name(f".{path.name}.{os.getpid()}")
    with open(private, "w") as file:
        file.write(json.dumps(value))
        file.flush()
        os.fsync(file.fileno())
    os.rename(private, path)


def serve(arguments: argparse.Namespace) -> int:
    """Run until a signal; then write the table."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load_settings(arguments.config)
        log = None if arguments.access_log is None else open(arguments.access_log, "a")
    except (OSError, BadSettings) as error:
        print(f"panda: {error}", file=sys.stderr)
        return 2
    model = PandaModel(settings.times, settings.flavour, settings.queues)
    model.epoch_s = time.time() - time.monotonic()
    service = PandaServer(model, log, settings)
    service.advance()
    try:
        server = _listen((arguments.host, arguments.port), service)
        orders = _listen((arguments.host, 0), service, orders=True)
    except OSError as error:
        print(f"panda: {arguments.host}:{arguments.port}: {error.strerror}", file=sys.stderr)
        return 1
    port = server.server_address[1]
    roles = "required" if settings.require_role else "not asked for"
    url = f"http{'s' if settings.tls else ''}://{arguments.host}:{port}"
    orders_url = f"http://{arguments.host}:{orders.server_address[1]}"
    facts = {"pid": os.getpid(), "port": port, "url": url, "orders_url": orders_url, "roles": roles}
    write_json(arguments.ready, facts)
    while not stop.wait(ADVANCE_EVERY_S):
        service.advance()
        if service.away:
            _end(server)
            while service.away and not stop.wait(ADVANCE_EVERY_S):
                service.advance()
            server = _listen((arguments.host, port), service)
    _end(server)
    _end(orders)
    if arguments.dump is not None:
        write_json(arguments.dump, service.table())
    arguments.ready.unlink(missing_ok=True)
    return 0


def _listen(address: tuple[str, int], service: PandaServer, orders: bool = False) -> PandaHttpServer:
    server = PandaHttpServer(address, service, orders)
    if service.settings.tls and not orders:
        server.protect(service.settings.tls)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return server


def _end(server: PandaHttpServer) -> None:
    server.shutdown()
    server.server_close()


def loopback(text: str) -> str:
    """An address of the loopback network; the server listens nowhere else."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv4 address") from error
    if not address.is_loopback:
        raise argparse.ArgumentTypeError(f"{text} is not in 127.0.0.0/8")
    return text


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="simulators.panda.http",
        description="A simulated PanDA server on loopback, legacy and v1 calls. Ends with SIGTERM.",
    )
    parser.add_argument("--host", type=loopback, default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0: the kernel chooses")
    parser.add_argument(
        "--ready", type=Path, required=True, help="written when requests are served: pid, port, url, roles"
    )
    parser.add_argument("--dump", type=Path, help="the whole job table, written at the end")
    parser.add_argument(
        "--config", type=Path, help="JSON: times in seconds, flavour, queues, require_role, roles, tls, ..."
    )
    parser.add_argument(
        "--access-log", type=Path, help="one line a request: time, method, path, status, items, milliseconds"
    )
    return serve(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
