"""The daemon's own heartbeat: what it tells, and that a hanging receiver costs nobody else's time."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from rig import START, Rig, Site, make_job, make_limits

from pilot.monitor.announcer import Announcer
from pilot.monitor.status import render_status, render_summary
from pilot.multijob.model import CredentialRule
from pilot.multijob.recognise import Now
from pilot.ports import Credential, CredentialKind

TOO_LONG_S = 2.0


def summary() -> dict[str, Any]:
    core = Rig(make_limits(credentials={"panda": CredentialRule()}))
    ends_at = datetime(2030, 1, 1, tzinfo=UTC)
    core.memory.credentials["panda"] = Credential(CredentialKind.X509, "/secret/proxy", ends_at, "f")
    core.memory.credential_read_s["panda"] = 0.0
    core.run(Site([make_job(n) for n in range(1, 9)]).respond, 40)
    core.memory.raise_alarm("credential-panda", "/secret/proxy ends in 2.0 h", 1.0)
    now = Now(START.isoformat(), core.now_s)
    return render_summary(render_status(core.state, core.memory, core.limits, (), now, version="1.2"))


def test_counts_and_names_are_told_and_no_path_and_no_reason() -> None:
    found = summary()
    text = json.dumps(found)
    assert found["version"] == "1.2"
    assert found["queues"][0]["wanted"] == 2
    assert found["queues"][0]["live"] == 2
    assert found["queues"][0]["running"] == 0
    assert [alarm["name"] for alarm in found["alarms"]] == ["credential-panda"]
    assert "secret" not in text
    assert "PRODSYS" not in text
    assert len(text) < 4000


def test_a_receiver_gets_the_newest_document() -> None:
    got: queue.Queue[dict[str, Any]] = queue.Queue()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    announcer = Announcer(f"http://127.0.0.1:{server.server_address[1]}/edge", 0.05, 5.0)
    try:
        announcer.offer({"n": 1})
        announcer.offer({"n": 2})
        announcer.start()
        assert got.get(timeout=10) == {"n": 2}
        announcer.offer({"n": 3})
        assert got.get(timeout=10) == {"n": 3}
    finally:
        announcer.close()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_hanging_receiver_never_slows_whoever_offers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        announcer = Announcer(f"http://127.0.0.1:{listening.getsockname()[1]}/", 0.01, 600.0)
        announcer.offer({"n": 0})
        announcer.start()
        line, _ = listening.accept()
        started_s = time.monotonic()
        for number in range(10_000):
            announcer.offer({"n": number})
        announcer.close()
        assert time.monotonic() - started_s < TOO_LONG_S
        line.close()


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".org", "[zz]", "[::1"])
def test_a_url_whose_host_is_none_is_told_and_ends_no_thread(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()
    caplog.handler.addFilter(lambda record: told.set() or True)
    announcer = Announcer(f"http://{host}/", 0.01, 5.0)
    announcer.offer({"n": 1})
    announcer.start()
    try:
        assert told.wait(10)
    finally:
        announcer.close()
    assert "status heartbeat not taken" in caplog.text
