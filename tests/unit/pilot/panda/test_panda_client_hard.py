"""Answers and texts that must not stop a lane, lose a neighbour, or pass for something else."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

import pytest

from pilot.panda import legacy, v1
from pilot.panda.legacy import NOT_TOLD, PandaLegacy
from pilot.panda.transport import Transport
from pilot.panda.v1 import PandaV1
from pilot.ports import Broken, Failure, JobStatus, PandaId, Refused, ServerStatus, Unavailable, Update


@dataclass
class Wire:
    """A transport that answers by a function."""

    answer: Callable[[str, bytes], str | Failure]
    timeout_s: float = 60.0
    calls: list[str] = field(default_factory=list)

    def post(self, path: str, body: bytes, headers: object) -> str | Failure:
        self.calls.append(path)
        return self.answer(path, body)

    def get(self, path: str, headers: object) -> str | Failure:
        return self.post(path, b"", headers)


def updates(count: int) -> list[Update]:
    return [Update(PandaId(n), 1, JobStatus.RUNNING, "Q") for n in range(1, count + 1)]


def stopping_at(bad: set[int]) -> Callable[[str, bytes], str]:
    """A legacy server that stops at these jobs."""

    def answer(_: str, body: bytes) -> str:
        items = json.loads(parse_qs(body.decode())["jobList"][0])
        if any(item["jobId"] in bad for item in items):
            return json.dumps([False, "updateJobsInBulk None failed with TypeError x"])
        return json.dumps([True, ["StatusCode=0&command=NULL"] * len(items)])

    return answer


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_deep_nesting_is_broken(text: str) -> None:
    assert isinstance(v1.parse_fetch(text, "Q"), Broken)
    assert isinstance(legacy.parse_fetch(text, "Q"), Broken)


def test_a_status_that_is_no_text_is_no_answer() -> None:
    text = '{"StatusCode": 0, "data": [{"command": null}, {"status": "running", "command": null}]}'
    assert legacy.parse_check(text, [PandaId(1), PandaId(2)]) == (ServerStatus(PandaId(2), 0, "running"),)


def test_texts_of_a_report_are_printable_ascii() -> None:
    update = Update(PandaId(1), 1, JobStatus.FAILED, "Q", pilot_error_diag="a\0b\x1b\u00e9" + "x" * 900)
    diag = legacy.render_update(update)["pilotErrorDiag"]
    assert diag.startswith("a\\x00b\\x1b\\xe9x")
    assert len(diag) == 250


def test_an_empty_report_of_a_failed_job_is_not_sent() -> None:
    assert "xml" not in legacy.render_update(Update(PandaId(1), 1, JobStatus.FAILED, "Q"))
    assert legacy.render_update(Update(PandaId(1), 1, JobStatus.FINISHED, "Q"))["xml"] == "{}"


@pytest.mark.parametrize(("batch_id", "sent"), [("7.sim", None), ("17.sim", "17"), ("1234[5].bw", "1234")])
def test_a_batch_id_of_one_digit_is_no_number_to_the_server(batch_id: str, sent: str | None) -> None:
    update = Update(PandaId(1), 1, JobStatus.RUNNING, "Q", batch_id=batch_id)
    assert legacy.render_update(update).get("batchID") == sent


@pytest.mark.parametrize("bad", [{1}, {100}, {37, 38}, {5, 95}])
def test_one_update_that_stops_the_server_leaves_its_neighbours_reported(bad: set[int]) -> None:
    wire = Wire(stopping_at(bad))
    acks = PandaLegacy(wire, "managed").report(updates(100))  # type: ignore[arg-type]
    assert isinstance(acks, tuple)
    assert {ack.panda_id for ack in acks if ack.accepted} == set(range(1, 101)) - bad
    assert len(wire.calls) <= 30


def test_a_server_that_stops_at_everything_is_not_stormed() -> None:
    wire = Wire(stopping_at(set(range(1, 401))))
    assert isinstance(PandaLegacy(wire, "managed").report(updates(400)), Unavailable)  # type: ignore[arg-type]
    assert len(wire.calls) <= 30


def test_a_bulk_update_without_role_is_refused() -> None:
    item = {"type": "json", "content": '{"StatusCode": 60, "errorDialog": "no role"}'}
    assert isinstance(legacy.parse_bulk(json.dumps([True, [item, item]]), updates(2)), Refused)


def test_the_depth_that_the_legacy_dialect_does_not_tell_is_not_zero() -> None:
    found = PandaLegacy(Wire(lambda path, body: "alive=yes"), "managed").queue_depth("Q")  # type: ignore[arg-type]
    assert isinstance(found, Refused)
    assert found.code == NOT_TOLD


def test_long_status_queries_are_split_and_a_failed_part_is_left_out() -> None:
    def answer(path: str, body: bytes) -> str | Failure:
        assert len(path) < 8000
        count = path.count("job_ids=")
        if "job_ids=600000000000&" in path:
            return Unavailable("x")
        return json.dumps(
            {"success": True, "message": "", "data": [{"command": None, "status": "sent"}] * count}
        )

    wire = Wire(answer)
    ids = [PandaId(600_000_000_000 + n) for n in range(1000)]
    found = PandaV1(wire, "managed").status(ids)  # type: ignore[arg-type]
    assert isinstance(found, tuple)
    assert 3 <= len(wire.calls) <= 4
    assert [item.panda_id for item in found] == ids[1000 - len(found) :]
    assert len(found) < 1000


@pytest.mark.parametrize("body", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"])
def test_an_answer_that_drips_is_given_up_in_time(body: bytes) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def drip() -> None:
        line, _ = listening.accept()
        with line:
            line.recv(10_000)
            line.sendall(b"HTTP/1.1 200 OK\r\n" + body)
            while not over.wait(0.02):
                try:
                    line.sendall(b"x" if b"Length" in body else b"1\r\nx\r\n")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    start_s = time.monotonic()
    try:
        found = Transport(f"http://127.0.0.1:{listening.getsockname()[1]}", 0.5).get("/x", {})
        assert isinstance(found, Unavailable)
        assert time.monotonic() - start_s < 5.0
    finally:
        over.set()
        thread.join()
        listening.close()
