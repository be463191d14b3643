"""What read calibrations is over only when these are known to be the ones that the bundle names."""

from __future__ import annotations

from typing import Any

from test_agent_orders import END, FakeHost, manifest

from pilot.multijob.node import orders
from pilot.multijob.node.manifest import Caldb

READY = {"kind": "ready", "environment": {}, "ready_s": 0.1, "pid": 1}
FAILED = {"kind": "failed", "reason": "snapshot x has checksum 1, expected 2", "log": ""}


class ProvingHost(FakeHost):
    """Its keeper says these, one (or a list) at each wait; the payload has ended long before the last one."""

    def __init__(self, *said: dict[str, Any] | list[dict[str, Any]]) -> None:
        super().__init__()
        self.said: list[list[Any]] = [item if isinstance(item, list) else [item] for item in said]

    def perform(self, operation: Any) -> Any:
        waits = isinstance(operation, orders.Hear) and operation.until_s is not None
        if waits and not self.news and self.said:
            said = self.said.pop(0)
            self.news += [orders.KeeperSaid(item) if isinstance(item, dict) else item for item in said]
        return super().perform(operation)


def work(host: FakeHost, jobs: int = 1) -> list[str]:
    caldb = Caldb("mariadb", "/s", "0", "i", "", "", "socket", None)
    host.run(manifest(jobs=jobs, needs_caldb=True)._replace(caldb=caldb))
    return host.kinds()


def test_an_end_before_the_proof_waits_for_it() -> None:
    host = ProvingHost({**READY, "proved": False}, {**READY, "proved": True})
    assert work(host) == ["caldb_ready", "job_started", "job_ended", "agent_ended"]
    assert host.said == [], "it ended after the proof"
    assert host.lines[2][1]["ended_by"] is None


def test_an_end_before_a_wrong_checksum_is_no_success() -> None:
    host = ProvingHost({**READY, "proved": False}, FAILED)
    assert work(host, jobs=2) == [
        "caldb_ready",
        "job_started",
        "caldb_failed",
        "given_back",
        "job_ended",
        "agent_ended",
    ]
    ended = dict(host.lines)["job_ended"]
    assert (ended["panda_id"], ended["ended_by"]) == (1, "caldb-lost")


def test_after_the_proof_nothing_waits() -> None:
    host = ProvingHost({**READY, "proved": True}, FAILED)
    assert work(host) == ["caldb_ready", "job_started", "job_ended", "agent_ended"]
    assert host.said == [[FAILED]]


def test_another_keepers_snapshot_has_to_be_proved_anew() -> None:
    again = {"kind": "restarted", "count": 1, "reason": "the keeper of another agent ended"}
    host = ProvingHost([{**READY, "proved": True}, again, {**READY, "proved": False}], FAILED)
    assert "caldb_failed" in work(host)
    assert dict(host.lines)["job_ended"]["ended_by"] == "caldb-lost"


def test_a_start_anew_before_the_proof_loses_what_read_the_first_copy() -> None:
    again = {"kind": "restarted", "count": 1, "reason": "the keeper of another agent ended"}
    host = ProvingHost({**READY, "proved": False}, [again, {**READY, "proved": True}])
    work(host)
    assert dict(host.lines)["job_ended"]["ended_by"] == "caldb-lost"


class SlowHost(ProvingHost):
    """The payload's end is heard together with what the keeper says second."""

    def perform(self, operation: Any) -> Any:
        if isinstance(operation, orders.Spawn):
            self.done.append("Spawn")
            self.said[0] += [orders.PayloadEnded(operation.slot, END)]
            return None
        return super().perform(operation)


def test_an_end_that_is_heard_with_another_copys_proof_read_the_first_copy() -> None:
    again = {"kind": "restarted", "count": 1, "reason": "the keeper of another agent ended"}
    host = SlowHost({**READY, "proved": False}, [again, {**READY, "proved": True}])
    work(host)
    assert dict(host.lines)["job_ended"]["ended_by"] == "caldb-lost"


def test_silence_about_the_proof_is_none() -> None:
    host = ProvingHost(READY, FAILED)
    work(host)
    assert dict(host.lines)["job_ended"]["ended_by"] == "caldb-lost"


class AskedHost(ProvingHost):
    """After 50 s the agent is asked to end."""

    def perform(self, operation: Any) -> Any:
        if isinstance(operation, orders.Hear) and self.now_s > 50 and "asked" not in self.done:
            self.done.append("asked")
            self.news.append(orders.AskedToEnd())
        return super().perform(operation)


def test_an_order_to_end_does_not_wait_for_the_proof() -> None:
    host = AskedHost({**READY, "proved": False})
    assert work(host)[-2:] == ["job_ended", "agent_ended"]
    assert [body.get("ended_by", body.get("reason")) for _, body in host.lines[-2:]] == ["terminated"] * 2


def test_a_closed_bundle_does_not_wait_for_the_proof() -> None:
    host = ProvingHost({**READY, "proved": False})
    host.files.before = lambda operation: host.now_s > 50 and host.files.put("/b/closed", "")
    work(host)
    assert dict(host.lines)["agent_ended"]["reason"] == "closed"
    assert dict(host.lines)["job_ended"]["ended_by"] == "closed"
