"""The wrong variants of the submission protocol, each as a directed scenario that the real protocol survives.

The scenario is chosen so that the variant doubles or loses a bundle in it: tests/mutants/world-*.yaml brings each
variant back into the production code and names the scenario that must then fail. Cancel and the look of a running
payload are bent in test_scenarios.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rig import make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.model import BundleState, RoundState
from pilot.ports import Appended, BatchId, BatchJobSeen, BundleId, JobStatus, Unavailable
from simulators.world.scene import Daemon, Scene

ONE, TWO = BatchId("1.sim"), BatchId("2.sim")
# visible_s 10, poll_s 20, kill_s 5: settle_s 45; grace_s 100; a listing every 60 s.


def make_scene(jobs: int = 4, run_s: float = 10.0, listing_every_s: float = 60.0) -> Scene:
    words = "PRODSYS_WORK=w{n} PRODSYS_NEVENTS=100 COMPASS_SW_PREFIX=/out/ COMPASS_SW_PATH=p/ PRODSOFT=s prodSlt=3 reco"
    waiting = [make_job(n, job_pars=words.format(n=n)) for n in range(1, jobs + 1)]
    limits = make_limits(evidence_every_s=5.0, submit_retry_s=1.0, listing_every_s=listing_every_s)
    queue = replace(limits.queues["long"], wanted=1, fill_wait_s=1.0)
    return Scene(replace(limits, queues={"long": queue}), waiting, run_s)


def submitted(scene: Scene) -> Daemon:
    daemon = scene.start_daemon()
    scene.advance(daemon, 20)
    assert len(scene.batch) == 1
    return daemon


def bundle_of(daemon: Daemon) -> Any:
    return next(iter(daemon.state.bundles.values()))


def finish(scene: Scene, daemon: Daemon, rounds: int = 8) -> None:
    """Let whatever waits start, agents finish, batch jobs end; then everything must be judged."""
    for _ in range(rounds):
        for batch_id, job in list(scene.batch.items()):
            if job.state == "waiting":
                scene.start_batch_job(batch_id)
        scene.advance(daemon, 60)
        for batch_id, job in list(scene.batch.items()):
            busy = [agent for agents in scene.agents.values() for agent in agents if not agent.over]
            if job.state == "running" and not busy and job.name != "other":
                scene.end_batch_job(batch_id)
        scene.advance(daemon, 60)


def assert_all_finished_once(scene: Scene, jobs: int = 4) -> None:
    assert scene.run_twice() == []
    assert scene.finals() == dict.fromkeys(range(1, jobs + 1), JobStatus.FINISHED)
    for panda_id, status in scene.finals().items():
        assert status is not JobStatus.FINISHED or (panda_id, 1) in scene.placed


def losing(kind: type, also: Callable[[Any], bool] = lambda action: True) -> Callable[[Any, Any], Any]:
    """The effect happens, the answer is lost (a time-out)."""

    def answer(action: Any, outcome: Any) -> Any:
        if isinstance(action, kind) and also(action):
            outcome()
            return Unavailable("no answer")
        return outcome

    return answer


def test_a_second_start_of_the_same_batch_job_launches_nothing() -> None:
    scene = make_scene()
    daemon = submitted(scene)
    assert scene.start_batch_job(ONE)
    scene.advance(daemon, 3)
    assert not scene.start_batch_job(ONE)
    finish(scene, daemon)
    assert_all_finished_once(scene)


def test_a_doubled_submission_launches_one_of_the_two() -> None:
    scene = make_scene()
    daemon = submitted(scene)
    twin = scene.submit(scene.batch[ONE].name)
    launched = [scene.start_batch_job(batch_id) for batch_id in (twin, ONE)]
    assert launched == [True, False]
    finish(scene, daemon)
    assert_all_finished_once(scene)


def test_a_claim_whose_reply_was_lost_is_still_owned() -> None:
    scene = make_scene()
    daemon = submitted(scene)
    scene.shared.lost_link_replies = 1
    assert scene.start_batch_job(ONE)
    finish(scene, daemon)
    assert_all_finished_once(scene)


def test_absent_once_closes_nothing() -> None:
    scene = make_scene(run_s=100.0)
    daemon = submitted(scene)
    scene.start_batch_job(ONE)
    scene.advance(daemon, 50)
    gone: list[int] = []

    def once_without(jobs: dict[BatchId, BatchJobSeen]) -> dict[BatchId, BatchJobSeen]:
        gone.append(1)
        return {} if len(gone) == 1 else jobs

    other = scene.foreign_job(daemon)
    scene.listed = lambda jobs: {
        other: jobs[other],
        **once_without({k: v for k, v in jobs.items() if k != other}),
    }
    scene.advance(daemon, 130)
    assert bundle_of(daemon).state is BundleState.OPEN
    finish(scene, daemon)
    assert_all_finished_once(scene)


def test_a_listing_that_failed_is_no_empty_listing() -> None:
    scene = make_scene(run_s=200.0)
    daemon = submitted(scene)
    scene.start_batch_job(ONE)
    scene.advance(daemon, 30)
    scene.answer_of = (
        lambda action, outcome: Unavailable("hung") if isinstance(action, a.ListBatchJobs) else outcome
    )
    scene.advance(daemon, 400)
    assert bundle_of(daemon).state is BundleState.OPEN
    scene.answer_of = lambda action, outcome: outcome
    finish(scene, daemon)
    assert_all_finished_once(scene)


def test_a_crash_after_qsub_finds_the_batch_job_again() -> None:
    scene = make_scene()
    daemon = scene.start_daemon()

    def crash(action: Any, outcome: Any) -> Any:
        if isinstance(action, a.SubmitBatchJob):
            outcome()
            daemon.dead = True
            return None
        return outcome

    scene.answer_of = crash
    scene.advance(daemon, 20)
    assert len(scene.batch) == 1
    scene.answer_of = lambda action, outcome: outcome
    again = scene.start_daemon()
    finish(scene, again)
    assert len(scene.batch) == 1
    assert_all_finished_once(scene)


def test_a_late_start_of_a_round_given_up_launches_nothing() -> None:
    scene = make_scene()
    daemon = submitted(scene)
    hidden = {ONE}
    scene.listed = lambda jobs: {batch_id: job for batch_id, job in jobs.items() if batch_id not in hidden}
    scene.foreign_job(daemon)
    scene.advance(daemon, 400)
    assert bundle_of(daemon).rounds[1].state is RoundState.VOID
    assert not scene.start_batch_job(ONE)
    numbers = [job.name.rpartition(".")[2] for job in scene.batch.values() if job.name != "other"]
    assert numbers == ["1", "2"]
    hidden.clear()
    finish(scene, daemon, 12)
    assert_all_finished_once(scene)


def test_the_claim_decides_when_the_batch_job_was_thought_gone() -> None:
    scene = make_scene(run_s=60.0)
    daemon = submitted(scene)
    scene.shared.delay_s = lambda path, reader: 1e9 if "claim." in path and reader == "edge" else 0.0
    scene.start_batch_job(ONE)
    other = scene.foreign_job(daemon)
    scene.listed = lambda jobs: {other: jobs[other]}
    scene.advance(daemon, 250)
    scene.listed = lambda jobs: jobs
    scene.shared.delay_s = lambda path, reader: 0.0
    assert bundle_of(daemon).rounds[1].state is RoundState.CLAIMED
    finish(scene, daemon)
    assert_all_finished_once(scene)


def test_verdicts_wait_until_the_last_line_can_be_seen() -> None:
    scene = make_scene(run_s=5.0, listing_every_s=3.0)
    daemon = submitted(scene)
    daemon.evidence.lines_late_s = 10.0
    scene.start_batch_job(ONE)
    scene.advance(daemon, 12)
    assert all(agent.over for agents in scene.agents.values() for agent in agents)
    scene.end_batch_job(ONE)
    finish(scene, daemon)
    assert_all_finished_once(scene)


def test_the_settle_time_covers_what_starts_before_closed_is_seen() -> None:
    scene = make_scene(run_s=7.0, listing_every_s=3.0)
    daemon = submitted(scene)
    daemon.evidence.lines_late_s = 10.0
    scene.shared.delay_s = lambda path, reader: 10.0 if path.endswith("/closed") else 0.0
    scene.start_batch_job(ONE)
    scene.advance(daemon, 2)
    scene.end_batch_job(ONE)
    scene.advance(daemon, 6)
    assert bundle_of(daemon).state is BundleState.CLOSED
    finish(scene, daemon)
    assert len(scene.ran) == 4
    assert_all_finished_once(scene)


def test_an_agent_that_comes_back_after_closing_starts_nothing() -> None:
    scene = make_scene(run_s=10.0)
    daemon = submitted(scene)
    scene.start_batch_job(ONE)
    agents = next(iter(scene.agents.values()))
    for agent in agents:
        agent.hanging = True
    scene.advance(daemon, 10)
    scene.end_batch_job(ONE)
    scene.advance(daemon, 300)
    assert bundle_of(daemon).state is BundleState.SETTLED
    for agent in agents:
        agent.hanging = False
    finish(scene, daemon)
    assert scene.run_twice() == []
    assert len(scene.ran) == 4
    assert_all_finished_once(scene)


def test_a_payload_that_runs_on_after_closing_is_ended_within_the_settle_time() -> None:
    scene = make_scene(run_s=500.0)
    daemon = submitted(scene)
    scene.start_batch_job(ONE)
    scene.advance(daemon, 10)
    scene.end_batch_job(ONE)
    scene.advance(daemon, 200)
    assert bundle_of(daemon).state is BundleState.SETTLED
    assert not scene.placed
    assert all(agent.over for agents in scene.agents.values() for agent in agents)
    scene.advance(daemon, 600)
    assert not scene.placed
    lost = [u for u in scene.reports if u.pilot_error_code == 1379]
    assert {u.panda_id for u in lost} == {run.panda_id for run in scene.ran}


def test_a_cancelled_bundle_whose_batch_job_was_launched_is_closed_not_dropped() -> None:
    scene = make_scene(run_s=10.0, listing_every_s=3.0)
    daemon = submitted(scene)
    scene.shared.delay_s = lambda path, reader: 1e9 if "claim." in path and reader == "edge" else 0.0
    scene.start_batch_job(ONE)
    scene.cancel(daemon, bundle_of(daemon).bundle_id)
    scene.advance(daemon, 15)
    scene.shared.delay_s = lambda path, reader: 0.0
    finish(scene, daemon)
    assert scene.run_twice() == []
    finals = scene.finals()
    for run in scene.ran:
        assert run.panda_id in finals


def test_a_cancelled_bundle_that_still_waits_never_launches() -> None:
    scene = make_scene()
    daemon = submitted(scene)
    bundle = bundle_of(daemon)
    scene.cancel(daemon, bundle.bundle_id)
    scene.advance(daemon, 200)
    assert bundle.rounds[1].state is RoundState.VOID
    assert not scene.start_batch_job(ONE)
    finish(scene, daemon)
    assert scene.run_twice() == []


def test_an_overtaken_daemon_acts_no_more() -> None:
    scene = make_scene()
    old = scene.start_daemon()
    held: list[Any] = []

    def pause(action: Any, outcome: Any) -> Any:
        if (
            isinstance(action, a.AppendEvents)
            and any(r["e"] == "RoundIntended" for r in action.records)
            and not held
        ):
            held.append(action)
            return None
        return outcome

    scene.answer_of = pause
    scene.advance(old, 20)
    assert held
    new = scene.start_daemon()
    new.state.bundles.clear()
    scene.answer_of = lambda action, outcome: outcome
    from pilot.ports import Answer, Ticket

    old.coming.append(
        (scene.now_s, Answer(Ticket(0), held[0], Appended(held[0].commit, scene.epoch), scene.now_s, 0.0))
    )
    scene.tick(old)
    assert old.dead
    assert not scene.batch


def test_a_pilots_claim_of_an_earlier_run_ends_the_wait() -> None:
    scene = make_scene()
    daemon = submitted(scene)
    bundle_id: BundleId = bundle_of(daemon).bundle_id
    daemon.evidence.make_claim(bundle_id, 1)
    again = scene.start_daemon()
    scene.advance(again, 30)
    assert again.state.bundles[bundle_id].rounds[1].state is RoundState.VOID
    assert not scene.start_batch_job(ONE)
    finish(scene, again, 10)
    assert_all_finished_once(scene)


def test_a_lost_answer_to_the_claim_is_asked_again_and_won() -> None:
    scene = make_scene()
    daemon = submitted(scene)
    scene.end_batch_job(ONE)
    scene.answer_of = losing(a.MakeClaim, lambda action: scene.now_s < 200)
    scene.advance(daemon, 400)
    scene.answer_of = lambda action, outcome: outcome
    finish(scene, daemon, 12)
    assert_all_finished_once(scene)
