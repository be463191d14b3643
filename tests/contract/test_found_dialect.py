"""The dialect that is found out, against simulated servers of four versions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pilot.panda.dialect import FoundOut, find_dialect, make_job_source
from pilot.panda.transport import Transport, read_answer
from pilot.ports import Failure, Fetched, Refused, Unavailable
from simulators.panda.flavour import FLAVOURS
from simulators.panda.http import PandaHttpServer, PandaServer
from simulators.panda.model import PandaModel


@contextmanager
def serving(flavour: str) -> Iterator[str]:
    server = PandaHttpServer(("127.0.0.1", 0), PandaServer(PandaModel(flavour=FLAVOURS[flavour]), None))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("flavour", "dialect"), [("both", "v1"), ("1.0.4", "v1"), ("0.8.1", "v1"), ("2018", "legacy")]
)
def test_the_dialect_is_found_out_at_the_first_call(flavour: str, dialect: str) -> None:
    with serving(flavour) as url:
        assert find_dialect(Transport(url, 20.0)) == dialect
        source = make_job_source("auto", url, timeout_s=20.0, prod_source_label="managed")
        assert source.fetch("Q", 1) == Fetched(())
        assert isinstance(source, FoundOut)
        assert type(source._source[0]).__name__.lower() == f"panda{dialect}"


class Says:
    """A transport that answers by path."""

    def __init__(self, **answers: str | Failure) -> None:
        self.answers, self.timeout_s, self.asked = answers, 60.0, []

    def get(self, path: str, headers: object) -> str | Failure:
        self.asked.append(path)
        return self.answers["v1" if path.startswith("/api/v1/") else "legacy"]


GONE, ALIVE = Refused("404", "Not Found"), "alive=yes"


@pytest.mark.parametrize(
    ("v1", "legacy", "expected"),
    [
        (GONE, ALIVE, "legacy"),
        (Refused("403", "ERROR : method is_alive is forbidden"), ALIVE, "legacy"),
        (Refused("403", "ERROR : Token authentication failed. x"), ALIVE, Refused),
        (Unavailable("timed out"), ALIVE, Unavailable),
        (GONE, Unavailable("timed out"), Unavailable),
        (GONE, "something else", Unavailable),
        ('{"success": false, "message": "", "data": null}', ALIVE, Unavailable),
    ],
)
def test_a_server_that_does_not_tell_is_asked_again(
    v1: str | Failure, legacy: str | Failure, expected: object
) -> None:
    transport = Says(v1=v1, legacy=legacy)
    found = find_dialect(transport)  # type: ignore[arg-type]
    assert found == expected if isinstance(expected, str) else isinstance(found, expected)  # type: ignore[arg-type]
    source = FoundOut(transport, "managed")  # type: ignore[arg-type]
    if not isinstance(expected, str):
        source.queue_depth("Q")
        source.queue_depth("Q")
        assert transport.asked.count("/api/v1/system/is_alive") == 3


def test_a_page_of_404_is_a_definite_no() -> None:
    assert isinstance(read_answer("/x", 404, b"<html>Not Found</html>"), Refused)
