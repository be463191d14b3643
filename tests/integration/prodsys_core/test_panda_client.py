"""The client over real sockets: what never connected, what may have been stored, what was answered."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from prodsys_core.config import Panda
from prodsys_core.panda import HttpJobSink
from prodsys_core.ports import Broken, PandaJob, Unavailable

JOB = PandaJob("n-1", 900, "Q", "mass production", "A=b x", {"m": "output"}, 1, 5, 2000, 7)


class Server(ThreadingHTTPServer):
    """Answers with what `reply` gives for (call, arguments)."""

    daemon_threads = True
    reply = None
    seen = ()


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        parts = urlsplit(self.path)
        self.answer(parts.path, parse_qs(parts.query))

    def do_POST(self):
        self.answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, path, arguments):
        self.server.seen = (*self.server.seen, (self.command, path, arguments))
        reply = self.server.reply(path, arguments)
        if reply is None:
            self.close_connection = True
            return
        body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def client(server, **changes):
    return HttpJobSink(Panda(url=f"http://127.0.0.1:{server.server_port}", timeout_s=2.0, **changes))


def ok(data):
    return {"success": True, "message": "", "data": data}


def test_submit_sends_a_text_and_reads_ids(server):
    server.reply = lambda path, arguments: ok([[5, 0, "n-1"]])
    assert client(server).submit([JOB]) == {"n-1": 5}
    method, path, arguments = server.seen[0]
    assert (method, path) == ("POST", "/api/v1/job/submit")
    assert json.loads(arguments["jobs"])[0][19] == "n-1"


def test_connection_that_closes_without_an_answer_may_have_stored(server):
    server.reply = lambda path, arguments: None
    failure = client(server).submit([JOB])
    assert isinstance(failure, Unavailable)
    assert failure.reached
    assert len(server.seen) == 1


def test_refused_connection_has_certainly_not_stored(server):
    closed = Server(("127.0.0.1", 0), Answers)
    closed.server_close()
    failure = client(closed).submit([JOB])
    assert isinstance(failure, Unavailable)
    assert not failure.reached


def test_statuses_are_asked_in_chunks_with_repeated_ids(server):
    server.reply = lambda path, arguments: ok(
        [{"status": "running", "command": None} for _ in arguments["job_ids"]]
    )
    assert client(server, status_chunk=2).statuses([1, 2, 3]) == dict.fromkeys((1, 2, 3), "running")
    assert [seen[2]["job_ids"] for seen in server.seen] == [["1", "2"], ["3"]]


def test_what_is_known_is_kept_when_a_later_call_fails(server):
    server.reply = (
        lambda path, arguments: ok([{"status": "running"}]) if arguments["job_ids"] == ["1"] else b"<html>"
    )
    assert client(server, status_chunk=1).statuses([1, 2]) == {1: "running"}
    assert isinstance(client(server, status_chunk=1).statuses([2, 1]), Broken)


def test_records_that_were_not_asked_for_are_dropped(server):
    record = {"PandaID": 9, "jobName": "n", "attemptNr": 1, "jobStatus": "running"}
    server.reply = lambda path, arguments: ok([record])
    assert client(server).descriptions([1]) == {}


def test_ids_of_a_batch(server):
    server.reply = lambda path, arguments: ok([7, 5, 7])
    assert client(server).job_ids(900) == (5, 7)
    assert server.seen[0] == ("GET", "/api/v1/task/get_job_ids", {"task_id": ["900"]})
