"""What follows from the end of life of a credential: alarms, holds, copies."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from rig import START, Rig, Site, make_job, make_limits

from pilot.monitor.status import render_status, render_text
from pilot.multijob import actions as a
from pilot.multijob.model import CredentialRule
from pilot.multijob.recognise import Now
from pilot.ports import Credential, CredentialKind, Refused

DAY_S = 86400.0


class Guarded(Site):
    """A kind site with one credential that ends `lasts_s` after the start."""

    def __init__(self, lasts_s: float, jobs: int = 4) -> None:
        super().__init__([make_job(n) for n in range(1, jobs + 1)])
        self.lasts_s, self.print, self.refused = lasts_s, "f1", ""
        self.done: list[a.Action] = []

    def respond(self, action: a.Action) -> object:
        self.done.append(action)
        if isinstance(action, a.LookAtCredential):
            if self.refused:
                return Refused("mode", self.refused)
            return Credential(CredentialKind.X509, "/p", START + timedelta(seconds=self.lasts_s), self.print)
        return super().respond(action)

    def names(self) -> list[str]:
        return [type(action).__name__ for action in self.done]


def rig(**rule: object) -> Rig:
    return Rig(make_limits(credentials={"panda": CredentialRule(**rule)}))  # type: ignore[arg-type]


def test_nothing_is_fetched_before_the_credential_has_been_read() -> None:
    site, core = Guarded(9 * DAY_S), rig()
    first = core.run(site.respond, 2)
    assert not any(
        isinstance(action, a.FetchJobs) for action in first[: first.index(a.LookAtCredential("panda"))]
    )
    core.run(site.respond, 20)
    assert "FetchJobs" in site.names()
    assert core.memory.alarms == {}


def test_the_file_is_looked_at_in_a_lane_and_not_at_each_tick() -> None:
    site, core = Guarded(9 * DAY_S), rig(look_every_s=60.0)
    core.run(site.respond, 120)
    assert 2 <= site.names().count("LookAtCredential") <= 3


def test_the_alarm_comes_well_before_the_end_and_goes_with_a_new_one() -> None:
    site, core = Guarded(DAY_S - 10), rig()
    core.run(site.respond, 5)
    assert "ends in 24.0 h" in core.memory.alarms["credential-panda"].reason
    site.lasts_s = 4 * DAY_S
    core.run(site.respond, 70)
    assert "credential-panda" not in core.memory.alarms


def test_no_bundle_is_planned_that_would_outlive_its_credential() -> None:
    site, core = Guarded(55.0), rig()
    core.run(site.respond, 30)
    assert "FetchJobs" in site.names()
    assert "PrepareBundle" not in site.names()
    document = render_status(
        core.state, core.memory, core.limits, (), Now(START.isoformat(), 0.0), version="x"
    )
    assert "before a bundle of" in document["queues"][0]["no_bundle_because"]
    assert "credential of panda" in render_text(document)
    site.lasts_s = 9 * DAY_S
    core.run(site.respond, 70)
    assert "SubmitBatchJob" in site.names()


def test_no_round_is_submitted_with_a_credential_that_ends_while_the_bundle_waits() -> None:
    site, core = Guarded(9 * DAY_S), rig()
    while "PrepareBundle" not in site.names():
        core.run(site.respond, 1)
    site.lasts_s = 0.0
    core.memory.credential_read_s.clear()
    for action in core.tick():
        core.answer(action, site.respond(action))
    intents = site.names().count("SubmitBatchJob")
    core.run(site.respond, 30)
    assert site.names().count("SubmitBatchJob") <= intents
    assert "has ended" in core.memory.alarms["credential-panda"].reason or "ended" in str(core.memory.alarms)


def test_a_bundle_may_outlive_a_credential_that_is_renewed_all_the_time() -> None:
    site, core = Guarded(600.0), rig(renewed=True, warn_s=60.0)
    core.run(site.respond, 60)
    assert "SubmitBatchJob" in site.names()
    assert core.memory.alarms == {}


@pytest.mark.parametrize("warn_s", [0.0, DAY_S])
def test_with_a_refused_credential_nothing_is_fetched_and_running_jobs_go_on(warn_s: float) -> None:
    site, core = Guarded(9 * DAY_S), rig(warn_s=warn_s)
    core.run(site.respond, 60)
    site.refused = "/p has mode 0644"
    core.run(site.respond, 70)
    site.done.clear()
    core.run(site.respond, 30)
    assert "FetchJobs" not in site.names()
    assert "CancelBatchJob" not in site.names()
    assert core.memory.alarms["credential-panda"].reason == "/p has mode 0644"


def test_a_bundle_gets_its_copy_before_qsub_a_new_one_when_it_changes_and_none_after_its_end() -> None:
    site, core = Guarded(9 * DAY_S), rig(variable="X509_USER_PROXY")
    core.run(site.respond, 60)
    names = site.names()
    assert names.index("DeliverCredential") < names.index("SubmitBatchJob")
    (prepared,) = [x for x in site.done if isinstance(x, a.PrepareBundle)]
    bundle = prepared.files.bundle_id
    assert f'"X509_USER_PROXY": "/shared/bundles/{bundle}/credential"' in prepared.files.manifest
    site.print = "f2"
    core.run(site.respond, 70)
    copies = [x for x in site.done if isinstance(x, a.DeliverCredential)]
    assert [copy.fingerprint for copy in copies] == ["f1", "f2"]
    (batch_id,) = site.batch
    site.start(batch_id)
    core.run(site.respond, 70)
    site.end(batch_id)
    core.run(site.respond, 120)
    assert [x.bundle_id for x in site.done if isinstance(x, a.WithdrawCredential)] == [bundle]
    assert [
        x.fingerprint for x in site.done if isinstance(x, a.DeliverCredential) and x.bundle_id == bundle
    ] == [
        "f1",
        "f2",
    ]


def test_without_a_credential_nothing_is_looked_at() -> None:
    site = Guarded(0.0)
    core = Rig(replace(make_limits(), credentials={}))
    core.run(site.respond, 60)
    assert "LookAtCredential" not in site.names()
    assert "SubmitBatchJob" in site.names()
