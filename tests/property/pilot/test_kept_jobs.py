"""A job's small form loses nothing, and counts of jobs are those of the jobs."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig import Rig, Site, make_job

from pilot.multijob.apply import replay
from pilot.multijob.events import JobFetched, JobFoundOver
from pilot.multijob.keptjob import keep, render_base, unfold
from pilot.ports import Job, PandaId

TEXTS = st.text(st.characters(), max_size=60)
JOBS = st.builds(
    Job,
    st.integers(1, 2**63).map(PandaId),
    st.integers(0, 99),
    TEXTS,
    TEXTS,
    TEXTS,
    st.one_of(TEXTS, TEXTS.map(lambda text: text * 200)),
    st.lists(TEXTS, max_size=3).map(tuple),
    st.none() | TEXTS,
    st.integers(-9, 9999),
    TEXTS,
    st.none() | st.integers(0, 99999),
    st.integers(1, 64),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JOBS, JOBS)
def test_a_job_is_the_same_after_it_was_kept_against_any_other(job: Job, first: Job) -> None:
    for base in (render_base(first), render_base(job)):
        assert unfold(job.panda_id, job.attempt_nr, keep(job, base), base) == job


def test_jobs_are_counted_as_they_stand_in_every_tick() -> None:
    rig = Rig()
    site = Site([make_job(number) for number in range(1, 20)])
    for _ in range(40):
        rig.run(site.respond, 1, after_s=30.0)
        stands = Counter((record.queue, record.state) for record in rig.state.jobs.values())
        assert {key: count for key, count in rig.state.counts.items() if count} == stands
    assert rig.state.counts


def test_a_job_that_is_over_is_counted_no_more() -> None:
    at = "2026-01-01T00:00:00+00:00"
    state = replay([JobFetched(at, "long", make_job(1)), JobFetched(at, "long", make_job(2))])
    assert sum(state.counts.values()) == 2
    state = replay([JobFetched(at, "long", make_job(1)), JobFoundOver(at, make_job(1).panda_id, "closed")])
    assert sum(state.counts.values()) == 0
