"""The server process: ready file, faults, access log, table at the end, bad input."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from simulators.panda.jobspec import ATTRIBUTES

LIMIT_S = 20.0


class Process:
    """A server process and its files."""

    def __init__(self, directory: Path, *options: str, **settings: Any) -> None:
        self.directory = directory
        self.ready, self.dump, self.log = (directory / name for name in ("ready", "table", "access"))
        config = directory / "config"
        config.write_text(json.dumps({"activate_s": 0, "adder_s": 0, **settings}))
        files = ["--ready", self.ready, "--dump", self.dump, "--access-log", self.log, "--config", config]
        command = [sys.executable, "-m", "simulators.panda.http", *map(str, files), *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + LIMIT_S
        while not self.ready.exists() and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        self.facts = json.loads(self.ready.read_text()) if self.ready.exists() else {}
        self.url = self.facts.get("url", "")

    def v1(self, call: str, **arguments: Any) -> Any:
        answer = requests.post(f"{self.url}/api/v1/{call}", json=arguments, timeout=LIMIT_S)
        return answer.json()

    def submit(self, count: int) -> list[int]:
        answer = self.v1("job/submit", jobs=json.dumps([positional(n) for n in range(count)]))
        return [item[0] for item in answer["data"]]

    def fault(self, **order: Any) -> requests.Response:
        return requests.post(f"{self.url}/sim/fault", json=order, timeout=LIMIT_S)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT_S)


def positional(number: int) -> list[Any]:
    values = {"jobName": f"j{number}", "computingSite": "Q", "prodSourceLabel": "prod_test", "attemptNr": 1}
    files = [["NULL", "NULL", "NULL", "l.tgz", "log", *["NULL"] * 13, None]]
    return [*(values.get(name, "NULL") for name in ATTRIBUTES), files]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    running = Process(tmp_path)
    assert running.url
    yield running
    if running.process.poll() is None:
        running.end()
    if running.process.stderr:
        running.process.stderr.close()


def test_table_is_written_at_the_end_and_told_before(server: Process) -> None:
    (panda_id,) = server.submit(1)
    server.v1("pilot/acquire_jobs", site_name="Q")
    server.v1("pilot/update_job", job_id=panda_id, job_status="running", attempt_nr=1, batch_id="77")
    told = requests.get(f"{server.url}/sim/table", timeout=LIMIT_S).json()
    assert server.end() == 0
    written = json.loads(server.dump.read_text())
    assert told == written
    (row,) = written["jobs"]
    keys = {
        "panda_id",
        "status",
        "attempt_nr",
        "job_name",
        "attributes",
        "files",
        "report",
        "updates",
        "history",
    }
    assert keys <= row.keys()
    assert (row["status"], row["updates"], row["attributes"]["batchID"]) == ("running", {"running": 1}, "77")
    assert [status for _, status in row["history"]] == ["defined", "activated", "sent", "running"]
    assert abs(row["history"][-1][0] - time.time()) < 60
    assert not server.ready.exists()


def test_a_lost_answer_was_worked_and_an_error_before_the_work_was_not(server: Process) -> None:
    ids = server.submit(3)
    server.fault(name="lose-next-answer", path="acquire")
    with pytest.raises(requests.ConnectionError):
        server.v1("pilot/acquire_jobs", site_name="Q")
    for order, status in (
        ({"name": "500"}, 500),
        ({"name": "html"}, 200),
        ({"name": "500", "after": True}, 500),
    ):
        server.fault(path="acquire", **order)
        answer = requests.post(
            f"{server.url}/api/v1/pilot/acquire_jobs", json={"site_name": "Q"}, timeout=LIMIT_S
        )
        assert answer.status_code == status
    taken = server.v1("pilot/acquire_jobs", site_name="Q", n_jobs=9)["data"]["jobs"]
    assert [job["PandaID"] for job in taken] == [ids[2]]


def test_a_bad_fault_is_refused_with_a_reason(server: Process) -> None:
    answer = server.fault(name="burn")
    assert (answer.status_code, answer.text.startswith("name: expected one of")) == (400, True)


def test_access_log_has_one_escaped_line_a_request(server: Process) -> None:
    server.submit(2)
    with socket.create_connection(("127.0.0.1", server.facts["port"]), LIMIT_S) as line:
        line.sendall("GET /server/panda/a\x1b[31mb\x07é HTTP/1.0\r\n\r\n".encode("latin-1"))
        assert b"403" in line.recv(100)
    server.end()
    lines = sorted(server.log.read_text().splitlines(), key=lambda entry: "submit" not in entry)
    assert lines[0].split()[1:5] == ["POST", "/api/v1/job/submit", "200", "2"]
    assert len(lines) == 2
    assert all(entry.isascii() and entry.isprintable() for entry in lines[:1])
    assert "\\x1b[31mb\\x07" in lines[1]


def test_a_submission_whose_client_has_gone_is_stored(server: Process) -> None:
    body = json.dumps({"jobs": json.dumps([positional(n) for n in range(50)])}).encode()
    head = f"POST /api/v1/job/submit HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.facts["port"]), LIMIT_S) as line:
        line.sendall(head.encode() + body)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        table = requests.get(f"{server.url}/sim/table", timeout=LIMIT_S).json()
        if len(table["jobs"]) == 50:
            break
    assert len(table["jobs"]) == 50


def test_a_request_that_breaks_off_is_not_worked(server: Process) -> None:
    with socket.create_connection(("127.0.0.1", server.facts["port"]), LIMIT_S) as line:
        line.sendall(b"POST /api/v1/job/submit HTTP/1.1\r\nContent-Length: 500\r\n\r\n{")
        line.shutdown(socket.SHUT_WR)
        assert line.recv(100) == b""
    assert requests.get(f"{server.url}/sim/table", timeout=LIMIT_S).json()["jobs"] == []


def test_the_second_server_on_a_port_says_so_in_one_line(server: Process, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    second = Process(other, "--port", str(server.facts["port"]))
    assert second.process.wait(LIMIT_S) == 1
    assert second.process.stderr is not None
    with second.process.stderr as told:
        assert told.read() == f"panda: 127.0.0.1:{server.facts['port']}: Address already in use\n"
    assert not second.ready.exists()


BAD = {
    "unknown setting": ([], {"adders": 1}, "adders: unknown"),
    "not loopback": (["--host", "0.0.0.0"], {}, "0.0.0.0 is not in 127.0.0.0/8"),
    "no address": (["--host", "x"], {}, "'x' is no IPv4 address"),
}


@pytest.mark.parametrize(("options", "given", "text"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_and_nothing_is_served(
    tmp_path: Path, options: list[str], given: dict[str, Any], text: str
) -> None:
    server = Process(tmp_path, *options, **given)
    assert server.process.wait(LIMIT_S) == 2
    assert server.process.stderr is not None
    with server.process.stderr as told:
        assert text in told.read().splitlines()[-1]
    assert not server.ready.exists()


def test_roles_are_required_where_the_setting_says_so(tmp_path: Path) -> None:
    server = Process(tmp_path, require_role=True)
    try:
        assert server.facts["roles"] == "required"
        url = f"{server.url}/api/v1/pilot/acquire_jobs"
        answers = [
            requests.post(url, json={"site_name": "Q"}, headers=headers, timeout=LIMIT_S).json()["message"]
            for headers in ({}, {"X-Test-DN": "/CN=a", "X-Test-FQAN": "/vo/Role=production"})
        ]
        assert answers == ["SSL secure connection is required", "No jobs in PanDA"]
    finally:
        server.end()
        if server.process.stderr:
            server.process.stderr.close()


def test_during_an_outage_nobody_listens_and_the_servers_daemons_go_on(server: Process) -> None:
    server.submit(1)
    orders = server.facts["orders_url"]
    order = {"name": "outage", "seconds": 1000}
    assert requests.post(f"{orders}/sim/fault", json=order, timeout=LIMIT_S).ok
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end and _answers(server):
        time.sleep(0.01)  # between two questions
    assert not _answers(server)
    while requests.get(f"{orders}/sim/counts", timeout=LIMIT_S).json()["jobs"] != {"activated": 1}:
        assert time.monotonic() < end
    requests.post(f"{orders}/sim/fault", json={"name": "mend"}, timeout=LIMIT_S)
    while time.monotonic() < end and not _answers(server):
        time.sleep(0.01)
    assert _answers(server)


def _answers(server: Process) -> bool:
    try:
        return requests.get(f"{server.url}/sim/counts", timeout=LIMIT_S).ok
    except requests.ConnectionError:
        return False


def test_a_share_of_calls_fails_and_the_log_says_which(server: Process) -> None:
    assert server.fault(name="failing", share=1.0).ok
    assert not any(_served(server) for _ in range(8))
    server.fault(name="mend")
    assert _served(server)
    assert server.log.read_text().count("fault=") == 8


def test_of_a_share_of_calls_the_answer_is_lost_and_the_work_is_done(server: Process) -> None:
    assert server.fault(name="losing", share=1.0).ok
    before = requests.get(f"{server.url}/sim/counts", timeout=LIMIT_S).json()["calls"]
    assert not any(_served(server) for _ in range(4))
    server.fault(name="mend")
    after = requests.get(f"{server.url}/sim/counts", timeout=LIMIT_S).json()["calls"]
    path = "/api/v1/system/is_alive"
    assert after[path] - before.get(path, 0) >= 4
    assert "fault=lose-next-answer" in server.log.read_text()
    assert _served(server)


def test_no_caller_of_the_open_port_has_a_process_ended(server: Process) -> None:
    order = {"name": "kill-caller", "moment": "worked", "victim": [os.getpid(), 1]}
    refused = requests.post(f"{server.url}/sim/fault", json=order, timeout=LIMIT_S)
    assert refused.status_code == 403
    assert (
        requests.post(
            f"{server.url}/sim/fault", json={**order, "victim": [1, 1]}, timeout=LIMIT_S
        ).status_code
        == 400
    )
    assert _served(server)


def _served(server: Process) -> bool:
    try:
        answer = requests.get(f"{server.url}/api/v1/system/is_alive", timeout=LIMIT_S)
        return answer.ok and "success" in answer.text
    except (requests.RequestException, ValueError):
        return False


def test_a_pace_per_job_slows_a_call_by_its_jobs(tmp_path: Path) -> None:
    slow = Process(tmp_path, per_job_s=0.05)
    try:
        began = time.monotonic()
        slow.submit(10)
        assert time.monotonic() - began >= 0.5
    finally:
        slow.end()
