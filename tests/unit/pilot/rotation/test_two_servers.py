"""Two servers, each counting its jobs from 1, in one daemon: a number says nothing without its server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from rig import START, Rig, Site, good_end, make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.apply import replay
from pilot.multijob.codec import decode
from pilot.multijob.jobkeys import make_key, number_of, panda_id_of
from pilot.multijob.knownjobs import moved_queue
from pilot.multijob.model import JobState, Limits
from pilot.multijob.recognise import Now
from pilot.panda.wire import parse_job
from pilot.ports import (
    PANDA_ID_MAX,
    Ack,
    AlreadyThere,
    BatchState,
    BundleId,
    BundlesFound,
    DirectorySeen,
    Done,
    EvidenceSeen,
    Fetched,
    Job,
    JobStatus,
    MalformedJob,
    PandaId,
    ServerStatus,
    Update,
)
from pilot.rotation.story import story
from pilot.rotation.why import why

SERVERS = {"panda": "long", "other": "short"}
NUMBERS = range(1, 5)


def two_limits() -> Limits:
    """Two queues, each of a server of its own; one canary would hold the others up."""
    long = make_limits().queues["long"]
    short = replace(long, name="short", server="other", panda_queue="S", batch_queue="short")
    return make_limits(queues={"long": long, "short": short}, submit_retry_s=5.0, listing_every_s=20.0)


class Two(Site):
    """A site with two servers. `told`: what each was reported; `orders`, `status`: its answers by its PandaIDs."""

    def __init__(self) -> None:
        super().__init__([])
        self.given: dict[str, list[Job]] = {
            "panda": [make_job(n) for n in NUMBERS],
            "other": [replace(make_job(n), panda_queue="S", job_name=f"other-{n}") for n in NUMBERS],
        }
        self.told: dict[str, list[Update]] = {name: [] for name in SERVERS}
        self.orders: set[tuple[str, int]] = set()
        self.status: dict[tuple[str, int], str] = {}
        self.manifests: dict[BundleId, Mapping[str, Any]] = {}
        self.written: list[a.WriteCommands] = []

    def respond(self, action: a.Action) -> Any:
        match action:
            case a.FetchJobs():
                jobs = self.given[action.server]
                given, self.given[action.server] = jobs[: action.count], jobs[action.count :]
                return Fetched(tuple(given))
            case a.ReportJobs():
                self.told[action.server].extend(action.updates)
                ordered = {number for server, number in self.orders if server == action.server}
                words = ("tobekilled" if u.panda_id in ordered else "" for u in action.updates)
                return tuple(
                    Ack(u.panda_id, u.attempt_nr, True, word)
                    for u, word in zip(action.updates, words, strict=True)
                )
            case a.AskStatus():
                words = ("tobekilled" if (action.server, i) in self.orders else "" for i in action.ids)
                found = (self.status.get((action.server, i), "running") for i in action.ids)
                return tuple(
                    ServerStatus(i, 0, s, w) for i, s, w in zip(action.ids, found, words, strict=True)
                )
            case a.PrepareBundle():
                there = action.bundle_id in self.manifests
                self.manifests.setdefault(action.bundle_id, json.loads(action.files.manifest))
                return AlreadyThere() if there else Done()
            case a.FindBundles():
                return BundlesFound(tuple(self.manifests))
            case a.AdoptBundle():
                self._claim(action.bundle_id, 1)
                return DirectorySeen(action.bundle_id, json.dumps(self.manifests[action.bundle_id]), 1)
            case a.WriteCommands():
                self.written.append(action)
        return super().respond(action)

    def _read(self, bundle_id: BundleId, offsets: Mapping[str, int]) -> EvidenceSeen:
        return replace(super()._read(bundle_id, offsets), scripts=(1,) if bundle_id in self.manifests else ())

    def begin(self) -> None:
        """Every batch job that waits starts, and with it its jobs, as its manifest names them."""
        for batch_id, job in list(self.batch.items()):
            tag = BundleId(job.name.partition(".")[0])
            if job.state is BatchState.WAITING and self.start(batch_id):
                for number in self.numbers(tag):
                    self.line(tag, "job_started", panda_id=number, attempt_nr=1)

    def finish(self) -> None:
        """Every job that runs ends well, and its batch job with it."""
        for batch_id, job in list(self.batch.items()):
            tag = BundleId(job.name.partition(".")[0])
            if job.state is BatchState.RUNNING:
                for number in self.numbers(tag):
                    self.line(tag, "job_ended", **good_end(make_job(number)))
                self.end(batch_id)

    def numbers(self, tag: BundleId) -> list[int]:
        """PandaIDs in the manifest of this bundle."""
        return [item["panda_id"] for node in self.manifests[tag]["nodes"] for item in node["jobs"]]

    def started(self, server: str) -> list[int]:
        """PandaIDs of this server's jobs that ever started."""
        tags = (tag for tag, found in self.manifests.items() if found["queue"] == SERVERS[server])
        lines = (line for tag in tags for line in self.lines.get(tag, []))
        return sorted(body["panda_id"] for kind, body in lines if kind == "job_started")

    def finals(self, server: str) -> list[tuple[int, JobStatus]]:
        """Final reports that this server has."""
        over = (JobStatus.FINISHED, JobStatus.FAILED)
        return sorted((int(u.panda_id), u.status) for u in self.told[server] if u.status in over)


def at_work() -> tuple[Rig, Two]:
    """Both servers' jobs 1 to 4 run, in a bundle of each queue."""
    rig, site = Rig(two_limits()), Two()
    rig.run(site.respond, 20, 5.0)
    site.begin()
    rig.run(site.respond, 10, 5.0)
    return rig, site


def end(rig: Rig, site: Two) -> None:
    """All that is at work ends well, until nothing is open."""
    for _ in range(60):
        site.begin()
        site.finish()
        rig.run(site.respond, 2, 5.0)


def again(rig: Rig, records: list[dict[str, Any]] | None = None) -> Rig:
    """A new daemon over the journal, or over these records of it."""
    kept = rig.durable if records is None else records
    new = Rig(rig.limits, replay(decode(record) for record in kept))
    new.durable, new.now_s, new._tags = list(kept), rig.now_s, rig._tags
    new.memory.started_s = rig.now_s
    new.memory.inherit(new.state)
    return new


def nameless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The journal as it was written before it named servers."""
    old: list[dict[str, Any]] = json.loads(json.dumps(records))
    for record in old:
        for part in (record, *record.get("jobs", ())):
            if isinstance(part, dict):
                part.pop("server", None)
                part.pop("to_server", None)
    return old


def asked(rig: Rig, subject: str) -> list[str]:
    return why(rig.state, rig.memory, subject, Now(START.isoformat(), rig.now_s), rig.limits)


GOOD = [(number, JobStatus.FINISHED) for number in NUMBERS]


def test_jobs_of_two_servers_with_the_same_numbers_all_run_and_each_server_hears_of_its_own() -> None:
    rig, site = at_work()
    assert len(rig.state.jobs) == 8
    assert site.started("panda") == site.started("other") == list(NUMBERS)
    end(rig, site)
    for server in SERVERS:
        assert site.finals(server) == GOOD
        heard = {(int(u.panda_id), u.status) for u in site.told[server]}
        assert {(n, JobStatus.STARTING) for n in NUMBERS} | {(n, JobStatus.RUNNING) for n in NUMBERS} <= heard
    assert not rig.state.jobs and not rig.memory.reported and not rig.memory.fetched


def test_a_server_that_ends_its_job_ends_no_other_servers_job_of_that_number() -> None:
    rig, site = at_work()
    site.orders = {("other", 2)}
    rig.run(site.respond, 600, 5.0)
    ordered = [record for record in rig.state.jobs.values() if record.kill_ordered]
    assert [(record.server, record.panda_id) for record in ordered] == [("other", 2)]
    (commands,) = site.written
    assert commands.end == ((PandaId(2), 1),)
    assert site.manifests[commands.bundle_id]["queue"] == "short"


def test_a_job_that_one_server_gives_up_is_not_the_other_servers() -> None:
    rig, site = at_work()
    site.orders, site.status = {("panda", 3)}, {("panda", 3): "failed"}
    rig.run(site.respond, 600, 5.0)
    given_up = [record for record in rig.state.jobs.values() if record.orphaned]
    assert [(record.server, record.panda_id) for record in given_up] == [("panda", 3)]


def test_a_job_handed_out_twice_by_its_own_server_is_still_one_job() -> None:
    rig, site = at_work()
    site.given["other"] = [replace(make_job(n), panda_queue="S") for n in NUMBERS]
    rig.run(site.respond, 200, 5.0)
    assert rig.state.totals["short"].fetched == 4
    end(rig, site)
    site.given["other"] = [replace(make_job(1), panda_queue="S")]
    end(rig, site)
    assert site.started("other") == list(NUMBERS)


def test_a_restart_knows_the_jobs_of_both_servers() -> None:
    rig, site = at_work()
    new = again(rig)
    assert new.state == rig.state
    end(new, site)
    assert site.finals("panda") == site.finals("other") == GOOD
    assert site.started("panda") == site.started("other") == list(NUMBERS)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_directories_of_both_servers_that_a_journal_has_forgotten_are_both_adopted(kept: int) -> None:
    """Nothing of either is known: the servers have no numbers yet, and their answers must not be mixed up."""
    rig, site = at_work()
    rig.durable = rig.durable[:kept]
    site.status = {("panda", 1): "failed", ("other", 2): "failed"}
    new = again(rig)
    new.run(site.respond, 60, 5.0)
    known = {(record.server, int(record.panda_id)): record.orphaned for record in new.state.jobs.values()}
    assert known == {(s, n): (s, n) in site.status for s in SERVERS for n in NUMBERS}
    assert replay(decode(record) for record in new.durable) == new.state
    end(new, site)
    assert site.started("panda") == site.started("other") == list(NUMBERS)
    assert site.finals("panda") == site.finals("other") == GOOD


def only_panda() -> tuple[Rig, Two]:
    """Jobs 1 to 4 of the first server run; the other one has none yet."""
    rig, site = Rig(two_limits()), Two()
    waiting, site.given["other"] = site.given["other"], []
    rig.run(site.respond, 20, 5.0)
    site.begin()
    rig.run(site.respond, 10, 5.0)
    site.given["other"] = waiting
    return rig, site


def test_a_journal_that_names_no_server_is_read_and_its_jobs_are_those_of_their_queues_servers() -> None:
    rig, site = only_panda()
    new = again(rig, nameless(rig.durable))
    assert {record.server for record in new.state.jobs.values()} == {""}
    site.given["panda"] = [make_job(n) for n in NUMBERS]
    new.run(site.respond, 200, 5.0)
    assert new.state.totals["long"].fetched == 4 and new.state.totals["short"].fetched == 4
    end(new, site)
    assert site.finals("panda") == site.finals("other") == GOOD
    assert site.started("panda") == site.started("other") == list(NUMBERS)
    site.given = {"panda": [make_job(1)], "other": [replace(make_job(2), panda_queue="S")]}
    end(new, site)
    assert site.started("panda") == site.started("other") == list(NUMBERS)
    assert replay(decode(record) for record in new.durable) == new.state


def test_jobs_without_a_servers_name_and_later_ones_of_the_pool_share_a_bundle() -> None:
    limits = two_limits()
    rig, site = Rig(limits), Two()
    site.given["other"], late = [], site.given["panda"][2:]
    site.given["panda"] = site.given["panda"][:2]
    rig.run(site.respond, 4, 5.0)
    new = again(rig, nameless(rig.durable))
    site.given["panda"] = late
    new.run(site.respond, 20, 5.0)
    (bundle,) = new.state.bundles.values()
    assert len(bundle.servers) == 2 and len(bundle.job_keys) == 4
    end(new, site)
    assert site.finals("panda") == GOOD and site.started("panda") == list(NUMBERS)
    assert replay(decode(record) for record in new.durable) == new.state


def test_story_and_why_tell_of_every_server_that_has_the_number_or_of_the_one_named() -> None:
    rig, site = at_work()
    end_lines = [line for line in asked(rig, "3") if line.startswith("job 3 of ")]
    assert [line.partition(":")[0] for line in end_lines] == ["job 3 of panda", "job 3 of other"]
    assert all("of other" in line for line in asked(rig, "other/3") if line.startswith("job"))
    assert not asked(rig, "nobody/3") and not asked(rig, str(PANDA_ID_MAX + 4))
    end(rig, site)
    events = [decode(record) for record in rig.durable]
    both, one = story(events, "3"), story(events, "other/3")
    assert sum("JobFetched" in line for line in both) == 2
    assert sum("JobFetched" in line for line in one) == 1
    assert one and all("server=panda" not in line for line in one)
    judged = [line for line in one if "JobJudged" in line]
    assert len(judged) == 1 and "server=other" in judged[0]
    for tag, found in site.manifests.items():
        other = "panda" if found["queue"] == "short" else "other"
        assert not any(f"server={other}" in line for line in story(events, tag))


def test_a_bundle_story_has_no_job_of_another_server() -> None:
    rig, site = at_work()
    end(rig, site)
    events = [decode(record) for record in rig.durable]
    for tag in site.manifests:
        assert sum("JobJudged" in line for line in story(events, tag)) == 4


def test_a_queue_keeps_its_server_while_jobs_of_it_are_open() -> None:
    rig, site = at_work()
    changed = replace(rig.limits.queues["short"], server="panda")
    limits = replace(rig.limits, queues={**rig.limits.queues, "short": changed})
    assert moved_queue(rig.state, rig.limits) is None
    reason = moved_queue(rig.state, limits)
    assert reason is not None and "queues.short.server: found panda, and 4 open jobs" in reason
    assert moved_queue(replay(decode(record) for record in nameless(rig.durable[:4])), limits) is None
    end(rig, site)
    assert moved_queue(rig.state, limits) is None


def test_a_number_that_leaves_no_room_for_its_server_is_no_job() -> None:
    item = {"PandaID": PANDA_ID_MAX, "attemptNr": 1, "transformation": "x", "jobPars": "y", "outFiles": "z"}
    assert isinstance(parse_job(item, "Q"), Job)
    found = parse_job({**item, "PandaID": PANDA_ID_MAX + 1}, "Q")
    assert isinstance(found, MalformedJob) and found.panda_id is None


def test_keys_keep_servers_apart_and_are_the_numbers_of_the_first_one() -> None:
    number = PandaId(7_000_000_001)
    keys = [make_key(place, number) for place in range(4)]
    assert keys[0] == number and len(set(keys)) == 4
    assert all(panda_id_of(key) == number for key in keys)
    assert [number_of(key) for key in keys] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="out of range"):
        make_key(0, PandaId(PANDA_ID_MAX + 1))


def test_a_job_of_the_pool_of_each_queue_keeps_its_state_apart() -> None:
    rig, _ = at_work()
    for server, queue in SERVERS.items():
        records = [record for record in rig.state.jobs.values() if record.server == server]
        assert len(records) == 4 and {record.queue for record in records} == {queue}
        assert {record.state for record in records} == {JobState.STARTED}
    assert rig.state.servers == {"panda": 0, "other": 1}
