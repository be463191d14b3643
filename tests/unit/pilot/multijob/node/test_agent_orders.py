"""The agent as a generator: whatever one of its orders does, it ends in order and what it says is true."""

from __future__ import annotations

import json
from typing import Any

import pytest
from simfiles import SimFiles

from pilot.multijob.node import orders
from pilot.multijob.node.agent import Agent
from pilot.multijob.node.collect import Clean, LocalSize, Pack, Scan, collect_steps
from pilot.multijob.node.files import CopyNew, Exists, run_steps
from pilot.multijob.node.manifest import Caldb, InputFile, Inputs, parse_manifest
from pilot.multijob.node.orders import Request
from pilot.multijob.node.provision import Drop, Outcome
from pilot.multijob.node.scan import Findings
from pilot.multijob.node.slots import Post
from pilot.multijob.node.steps import Collected, Line, PayloadEnd
from pilot.multijob.node.supply import Errand

END = PayloadEnd(0, None, None, 100.0, 90.0, 10.0, "t", "t")


def manifest(jobs: int = 3, needs_caldb: bool = False, **limits: float) -> Any:
    items = [
        {
            "panda_id": number,
            "attempt_nr": 1,
            "kind": "reco",
            "predicted_s": 10,
            "argv": ["x"],
            "environment": {},
            "outputs": [{"lfn": "o", "target": f"/out/o{number}"}],
            "log": {"lfn": "l", "target": f"/out/l{number}"},
        }
        for number in range(1, jobs + 1)
    ]
    return parse_manifest(
        json.dumps(
            {
                "schema": 1,
                "bundle_id": "abcdefgh2",
                "python": "python3",
                "agent_file": "/a.pyz",
                "walltime_s": 3600,
                "limits": limits,
                "local_dir": "/dev/shm",
                "slots": 1,
                "launch": [["aprun"]],
                "environment": {},
                "caldb": None,
                "kinds": {"reco": {"needs_caldb": needs_caldb}},
                "nodes": [{"index": 0, "jobs": items}],
            }
        )
    )


class FakeHost:
    """Payloads end as soon as somebody waits. `fails` raises instead of the order of this type."""

    def __init__(self, **fails: Exception) -> None:
        self.files = SimFiles(**{"/b/manifest.json": "{}"})
        self.fails, self.now_s = fails, 0.0
        self.lines: list[tuple[str, Any]] = []
        self.done: list[str] = []
        self.news: list[Any] = []

    def perform(self, operation: Any) -> Any:
        name = type(operation).__name__
        self.done.append(name)
        if name in self.fails:
            raise self.fails[name]
        if isinstance(operation, Line):
            self.lines.append((operation.kind, operation.body))
        elif isinstance(operation, orders.Hear):
            if operation.until_s is not None:
                self.now_s = max(self.now_s + 1.0, operation.until_s if not self.news else 0.0)
            news, self.news = tuple(self.news), []
            return news
        elif isinstance(operation, orders.Spawn):
            self.news.append(orders.PayloadEnded(operation.slot, END))
        elif isinstance(operation, orders.Gather):
            collected = Collected(None, (), None, None, (), "")
            self.news.append(orders.Gathered(operation.slot, collected))
        elif isinstance(operation, orders.Sample):
            return {}
        elif isinstance(operation, orders.Sweep):
            return orders.Swept(2, 3)
        elif hasattr(self.files, f"_{name}"):
            return self.files.perform(operation)
        return None

    def run(self, of: Any) -> list[tuple[str, Any]]:
        post = Post("/b", 1, 0, 3600.0, "1.sim", "n", "/l", "/l.db", "/a.pyz")
        run_steps(Agent(of, post, lambda: self.now_s).steps(), self.perform)
        return self.lines

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.lines]


def test_the_list_is_worked_one_job_after_the_other_and_the_end_is_told() -> None:
    host = FakeHost()
    host.run(manifest())
    assert host.kinds() == ["job_started", "job_ended"] * 3 + ["agent_ended"]
    assert host.lines[-1][1] == {
        "reason": "list worked",
        "left_behind": 2,
        "foreign": 3,
        "foreign_ended": 0,
        "host": "",
    }


def test_an_agent_that_breaks_ends_in_order_and_says_so() -> None:
    host = FakeHost(Spawn=RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        host.run(manifest())
    assert host.done[-3:] == ["LetKeeperGo", "Sweep", "Line"]
    assert host.lines[-1] == (
        "agent_ended",
        {"reason": "error", "left_behind": 2, "foreign": 3, "foreign_ended": 0, "host": ""},
    )


def test_without_a_local_directory_everything_goes_back() -> None:
    host = FakeHost(MakeLocal=OSError("full"))
    host.run(manifest())
    [(kind, body), _] = host.lines
    assert (kind, body["jobs"]) == ("given_back", [[1, 1], [2, 1], [3, 1]])
    assert "full" in body["reason"]


class ProbedHost(FakeHost):
    """Its probe says `failure`; `asked`: it is asked to end meanwhile."""

    def __init__(self, failure: str | None, asked: bool = False) -> None:
        super().__init__()
        self.failure, self.asked = failure, asked

    def perform(self, operation: Any) -> Any:
        if isinstance(operation, orders.Probe):
            self.news += [orders.AskedToEnd()] if self.asked else []
            super().perform(operation)
            return self.failure
        return super().perform(operation)


def test_an_avoided_node_that_fails_its_probe_gives_all_back_and_starts_nothing() -> None:
    host = ProbedHost("no disk")
    host.run(manifest(needs_caldb=True)._replace(avoided={"": "failed 2 times"}))
    assert host.kinds() == ["probed", "given_back", "agent_ended"]
    assert host.lines[0][1] == {"because": "failed 2 times", "failure": "no disk"}
    assert host.lines[1][1]["jobs"] == [[1, 1], [2, 1], [3, 1]]
    assert host.lines[2][1]["reason"] == "probe failed: no disk"
    assert {"Spawn", "StartKeeper"}.isdisjoint(host.done)


def test_an_avoided_node_that_passes_its_probe_works_its_list() -> None:
    host = ProbedHost(None)
    host.run(manifest()._replace(avoided={"": "failed 2 times"}))
    assert host.kinds() == ["probed"] + ["job_started", "job_ended"] * 3 + ["agent_ended"]


def test_only_an_avoided_node_probes() -> None:
    host = ProbedHost("no disk")
    host.run(manifest()._replace(avoided={"another": "failed 2 times"}))
    assert "Probe" not in host.done
    assert host.kinds() == ["job_started", "job_ended"] * 3 + ["agent_ended"]


def test_an_agent_that_is_asked_to_end_while_it_probes_has_no_bad_node() -> None:
    host = ProbedHost("true did not end in 60 s", asked=True)
    host.run(manifest()._replace(avoided={"": "failed 2 times"}))
    assert host.kinds() == ["probed", "given_back", "agent_ended"]
    assert host.lines[-1][1]["reason"] == "terminated"


def test_a_node_that_can_make_no_work_directory_starts_nothing_more() -> None:
    host = FakeHost(Spawn=OSError("no space"))
    host.run(manifest())
    assert host.kinds() == ["job_started", "given_back", "agent_ended"]
    assert host.lines[1][1]["jobs"] == [[2, 1], [3, 1]]


def test_without_a_journal_nothing_runs() -> None:
    host = FakeHost(Line=OSError("quota"))
    host.run(manifest())
    assert "Spawn" not in host.done
    assert host.done[-4:] == ["LetKeeperGo", "Sweep", "Line", "Say"]


def test_a_keeper_that_says_nothing_is_given_up() -> None:
    found = manifest(needs_caldb=True, caldb_ready_s=60)
    host = FakeHost()
    host.run(found._replace(caldb=Caldb("sqlite", "/s", "0", "i", "", "", "socket", None)))
    assert "KillKeeper" in host.done
    assert host.kinds() == ["caldb_failed", "given_back", "agent_ended"]
    assert host.now_s == 75.0


class FakeDisk:
    """What a payload left. `fails` raises instead of the operation of this type."""

    def __init__(self, **fails: Exception) -> None:
        self.files = SimFiles(**{"/b/manifest.json": "{}", "/w/o": "out", "/w.log.tgz": "log"})
        self.fails = fails
        self.done: list[str] = []

    def perform(self, operation: Any) -> Any:
        name = type(operation).__name__
        self.done.append(name)
        if name in self.fails:
            raise self.fails[name]
        if isinstance(operation, Scan):
            return Findings(True, (), 5, 5, "")
        if isinstance(operation, LocalSize | Pack):
            return 3
        if isinstance(operation, Clean):
            return None
        return self.files.perform(operation)


def collected(disk: FakeDisk) -> Collected:
    job = manifest().jobs[0][0]
    return run_steps(collect_steps(Request("/b", job, "/w", END, True, True, "n")), disk.perform)


def test_what_a_payload_left_is_read_placed_and_cleaned_away() -> None:
    disk = FakeDisk()
    assert [item["placed"] for item in collected(disk).files] == [True, True]
    assert disk.done[-1] == "Clean"


@pytest.mark.parametrize("name", ["Scan", "Pack", "CopyNew"])
@pytest.mark.parametrize("error", [OSError("gone"), ValueError("a bug")])
def test_whatever_fails_there_are_facts_and_the_place_is_clean(name: str, error: Exception) -> None:
    disk = FakeDisk(**{name: error})
    found = collected(disk)
    assert [item["lfn"] for item in found.files] == ["o", "l"]
    assert not all(item["placed"] for item in found.files)
    assert disk.done[-1] == "Clean"
    assert CopyNew.__name__ in disk.done or name != "CopyNew"


def test_a_work_directory_that_cannot_be_removed_keeps_no_slot_and_no_fact() -> None:
    found = collected(FakeDisk(Clean=OSError("stale handle")))
    assert [item["placed"] for item in found.files] == [True, True]
    assert "cannot be cleaned" in found.stderr_tail
    assert found.trouble == ""


class JournalOfHost(FakeHost):
    """Notes which lines are durable when a payload is spawned. `lost`: from this line on the journal is broken."""

    def __init__(self, lost: int = 1000) -> None:
        super().__init__()
        self.durable, self.written, self.syncs, self.spawned = 0, 0, 0, []
        self.lost = lost

    def perform(self, operation: Any) -> Any:
        if isinstance(operation, Line):
            if self.written >= self.lost:
                raise OSError("disk full")
            self.written += 1
            if operation.sync:
                self.syncs, self.durable = self.syncs + 1, self.written
        elif isinstance(operation, orders.Spawn):
            started = [(kind, body.get("panda_id")) for kind, body in self.lines[: self.durable]]
            self.spawned.append(("job_started", operation.job.panda_id) in started)
        return super().perform(operation)


def test_a_payload_is_spawned_only_when_its_start_line_is_durable() -> None:
    host = JournalOfHost()
    host.run(manifest(jobs=6)._replace(slots=2))
    assert host.spawned == [True] * 6
    assert host.durable == host.written == len(host.lines)


def test_what_ends_and_starts_together_is_durable_by_one_sync() -> None:
    host = JournalOfHost()
    host.run(manifest(jobs=8)._replace(slots=4))
    assert host.kinds() == ["job_started"] * 4 + ["job_ended"] * 4 + ["job_started"] * 4 + [
        "job_ended"
    ] * 4 + ["agent_ended"]
    assert host.syncs == 4


@pytest.mark.parametrize("lost", [0, 1, 2, 3, 4, 5])
def test_without_a_journal_nothing_more_is_started(lost: int) -> None:
    host = JournalOfHost(lost=lost)
    host.run(manifest(jobs=6)._replace(slots=2))
    assert host.spawned == [True] * (0 if lost < 2 else 2)
    assert host.done[-3:-1] == ["LetKeeperGo", "Sweep"]


def test_a_job_costs_the_shared_directory_two_lines_and_five_looks() -> None:
    host = FakeHost()
    host.run(manifest(jobs=20))
    looks = host.done.count("Exists") + host.done.count("Read")
    assert host.done.count("Line") == 2 * 20 + 1
    assert looks <= 5 * 20 + 3
    assert not {"Names", "SyncDirectory", "PutNew", "Put", "Link"} & set(host.done)


class TimedPayloads(FakeHost):
    """One slot; payloads take `lasts` seconds in turn. `looked`: when orders were looked for."""

    def __init__(self, *lasts: float) -> None:
        super().__init__()
        self.lasts, self.ends_s = list(lasts), 0.0
        self.looked: list[float] = []

    def perform(self, operation: Any) -> Any:
        if isinstance(operation, Exists) and operation.path == "/b/commands.json":
            self.looked.append(self.now_s)
        if isinstance(operation, orders.Spawn):
            self.ends_s = self.now_s + self.lasts.pop(0)
        if isinstance(operation, orders.Hear):
            until_s = self.now_s if operation.until_s is None else operation.until_s
            ended = bool(self.news) and self.ends_s <= until_s
            self.now_s = max(self.now_s, self.ends_s if ended else until_s)
            news, self.news = (tuple(self.news), []) if ended else ((), self.news)
            return news
        return super().perform(operation)


def test_orders_are_not_looked_for_after_each_short_payload_yet_never_late() -> None:
    host = TimedPayloads(*[0.01] * 1000)
    host.run(manifest(jobs=1000, poll_s=120, poll_apart_s=1, margin_s=10))
    apart = [late - early for early, late in zip(host.looked, host.looked[1:], strict=False)]
    assert len(host.looked) > 5
    assert min(apart) >= 1.0
    assert max(apart) < 1.1


def test_orders_are_looked_for_soon_after_a_look_that_a_short_payload_went_without() -> None:
    host = TimedPayloads(5.0, 0.01, 100.0)
    host.run(manifest(jobs=3, poll_s=120, poll_apart_s=1, margin_s=10))
    assert host.looked == pytest.approx([0.0, 5.0, 6.0, 105.01])


class CollectsAtOnce(FakeHost):
    """Nothing worth a thread is left by any payload."""

    def perform(self, operation: Any) -> Any:
        reply = super().perform(operation)
        if isinstance(operation, orders.Gather):
            self.news.pop()
            return Collected(None, (), None, None, (), "")
        return reply


def test_what_is_collected_at_once_ends_its_job_without_further_news() -> None:
    host = CollectsAtOnce()
    host.run(manifest())
    assert host.kinds() == ["job_started", "job_ended"] * 3 + ["agent_ended"]


class InputHost(FakeHost):
    """Errands end when somebody waits, with `outcomes` by path; a path that is not there has no answer."""

    def __init__(self, **outcomes: Outcome) -> None:
        super().__init__()
        self.outcomes = {"/raw/" + name: outcome for name, outcome in outcomes.items()}

    def perform(self, operation: Any) -> Any:
        if isinstance(operation, Errand):
            self.done.append(type(operation.request).__name__)
            path = getattr(operation.request, "source", getattr(operation.request, "path", ""))
            outcome = Outcome() if isinstance(operation.request, Drop) else self.outcomes.get(path)
            if outcome is not None:
                self.news.append(orders.ErrandDone(operation.number, outcome))
            return None
        if isinstance(operation, orders.LocalFree):
            return 100.0
        return super().perform(operation)


def with_inputs(of: Any, *paths: str, method: str = "in place") -> Any:
    jobs = tuple(job._replace(inputs=tuple(map(InputFile, paths))) for job in of.jobs[0])
    return of._replace(jobs={0: jobs}, inputs=Inputs(method, ("get", "{source}", "{target}")))


SEEN, LOST = Outcome(5), Outcome(0, "/raw/a: No such file or directory", True)


def test_nothing_is_started_before_its_inputs_are_there() -> None:
    host = InputHost(a=SEEN)
    host.run(with_inputs(manifest(jobs=1), "/raw/a", method="copy"))
    marks = [name for name in host.done if name in ("Look", "Fetch", "Line", "Spawn")]
    assert marks == ["Look", "Fetch", "Line", "Spawn", "Line", "Line"]
    assert host.kinds() == ["job_started", "job_ended", "agent_ended"]


@pytest.mark.parametrize(("absent", "why"), [(True, "no-input"), (False, "stage-in")])
def test_a_job_whose_input_is_not_there_fails_without_having_started(absent: bool, why: str) -> None:
    host = InputHost(a=Outcome(0, "/raw/a: bad\n", absent))
    host.run(with_inputs(manifest(jobs=1), "/raw/a"))
    assert host.kinds() == ["job_ended", "agent_ended"]
    assert "Spawn" not in host.done
    body = host.lines[0][1]
    assert (body["ended_by"], body["trouble"]) == (why, "/raw/a: bad\\n")
    assert [item["placed"] for item in body["files"]] == [False, False]


def test_a_node_that_gets_no_inputs_gives_the_rest_back() -> None:
    host = InputHost(a=LOST)
    host.run(with_inputs(manifest(jobs=6), "/raw/a"))
    assert host.kinds() == ["job_ended"] * 3 + ["given_back", "agent_ended"]
    assert host.lines[-1][1]["reason"] == "quick failures"


def ended_while_waiting(of: Any, host: InputHost, **put: str) -> list[tuple[str, Any]]:
    for name, text in put.items():
        host.files.put(f"/b/{name}", text)
    return host.run(with_inputs(of, "/raw/a"))


def test_closed_while_a_job_waits_for_its_inputs_starts_nothing() -> None:
    host = InputHost()
    host.files.before = lambda operation: host.now_s > 300 and host.files.put("/b/closed", "")
    assert [kind for kind, _ in ended_while_waiting(manifest(jobs=1), host)] == [
        "heartbeat",
        "closed_seen",
        "agent_ended",
    ]


def test_a_job_that_waits_until_it_no_longer_fits_goes_back_uncharged() -> None:
    host = InputHost()
    lines = ended_while_waiting(manifest(jobs=1, heartbeat_s=99999, input_try_s=99999), host)
    assert [kind for kind, _ in lines] == ["given_back", "agent_ended"]
    assert lines[0][1] == {"reason": "deadline while it waited for its inputs", "jobs": [[1, 1]]}
    assert host.now_s == 3600 - 300 - 10, "when its predicted 10 s and the margin are all that is left"


def test_an_order_to_end_a_job_that_waits_gives_it_back() -> None:
    host = InputHost()
    end = {"serial": 1, "end": [{"panda_id": 1, "attempt_nr": 1, "why": "killed"}]}
    host.files.before = lambda operation: host.now_s > 5 and host.files.put(
        "/b/commands.json", json.dumps(end)
    )
    lines = ended_while_waiting(manifest(jobs=1), host)
    assert lines[0] == ("given_back", {"reason": "killed while it waited for its inputs", "jobs": [[1, 1]]})


def test_a_limit_on_payloads_is_none_on_the_wait_for_inputs() -> None:
    host = InputHost()
    lines = ended_while_waiting(manifest(jobs=1, wall_max_s=50, quiet_max_s=50, heartbeat_s=9999), host)
    assert "deadline" in lines[0][1]["reason"]


def test_an_input_without_an_answer_fails_its_job_before_the_deadline() -> None:
    host = InputHost()
    lines = ended_while_waiting(manifest(jobs=1, input_try_s=100, input_tries=1, heartbeat_s=9999), host)
    assert [kind for kind, _ in lines] == ["job_ended", "agent_ended"]
    assert "no answer in 170 s" in lines[0][1]["trouble"]


def test_half_of_what_is_free_is_for_copies_where_nothing_else_is_said() -> None:
    host = InputHost(a=Outcome(60 << 20))
    host.run(with_inputs(manifest(jobs=1), "/raw/a", method="copy"))
    assert "do not fit into 50 MiB" in host.lines[0][1]["trouble"]
    host = InputHost(a=Outcome(60 << 20))
    host.run(with_inputs(manifest(jobs=1, inputs_max_mib=60), "/raw/a", method="copy"))
    assert host.kinds() == ["job_started", "job_ended", "agent_ended"]
