"""Rules of the batch server's model that hold after any sequence of inputs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.batch import torque
from pilot.batch.dialect import Reply
from pilot.ports import Listing
from simulators.torque.job import JobOver, KillJob, Letter, StartJob, Submission, TerminateJob
from simulators.torque.model import TorqueModel
from simulators.torque.site import TorqueSite
from simulators.torque.texts import render_full, render_xml

STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("submit"), st.integers(1, 5), st.integers(1, 4), st.integers(1, 300), st.booleans()
        ),
        st.tuples(st.just("delete"), st.integers(1, 12)),
        st.tuples(st.just("requeue"), st.integers(1, 12)),
        st.tuples(st.just("end"), st.integers(1, 12), st.integers(0, 255)),
        st.tuples(st.just("die"), st.integers(1, 4)),
        st.tuples(st.just("wait"), st.floats(0.1, 400.0)),
    ),
    max_size=40,
)


def play(model: TorqueModel, now: float, step: tuple) -> None:
    match step:
        case ("submit", nodes, ppn, walltime, rerunable):
            words = (("nodes", f"{nodes}:ppn={ppn}"), ("walltime", str(walltime)))
            model.submit(now, Submission("alice", "n", "x", resources=words, rerunable=rerunable))
        case ("delete", number):
            model.delete(now, f"{number}.sim", "alice")
        case ("requeue", number):
            model.requeue(now, f"{number}.sim")
        case ("end", number, code) if f"{number}.sim" in model.jobs:
            model.job_ended(now, f"{number}.sim", code)
        case ("die", number):
            model.node_died(number)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.booleans())
def test_no_slot_is_given_twice_and_every_start_has_one_end(steps, cray):
    model = TorqueModel(TorqueSite(nodes=4, slots=4, cray=cray, keep_completed_s=50, scheduler_interval_s=1))
    now, started, over = 0.0, {}, {}
    for step in steps:
        now += step[1] if step[0] == "wait" else 0.01
        play(model, now, step)
        for output in model.advance(now):
            match output:
                case StartJob(batch_id):
                    started[batch_id] = started.get(batch_id, 0) + 1
                case JobOver(batch_id):
                    over[batch_id] = over.get(batch_id, 0) + 1
                case TerminateJob(batch_id) | KillJob(batch_id):
                    assert model.jobs[batch_id].state is Letter.RUNNING
        for batch_id, count in started.items():
            assert count - over.get(batch_id, 0) in (0, 1)
            job = model.jobs.get(batch_id)
            running = job is not None and job.state is Letter.RUNNING
            assert running == (count > over.get(batch_id, 0))
        for node in model.nodes.values():
            slots = [slot for held in node.jobs.values() for slot in held]
            assert len(slots) == len(set(slots)) and set(slots) <= set(range(4))
            assert not cray or len(node.jobs) <= 1
        for job in model.jobs.values():
            assert (job.state is Letter.RUNNING) <= bool(job.placement)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_whatever_a_job_is_called_its_neighbours_are_read(names):
    model = TorqueModel(TorqueSite(scheduler_interval_s=1))
    for name in names:
        model.submit(0.0, Submission("alice", name, "x", variables=(("V", name),)))
    model.advance(5.0)
    ids = [f"{number}.sim" for number in range(1, len(names) + 1)]
    read = torque.parse_listing(Reply(0, render_xml(model.jobs.values(), 5.0, model.site), ""), "sim", None)
    assert isinstance(read, Listing) and [job.batch_id for job in read.jobs] == ids
    assert all(job.name.isprintable() for job in read.jobs)


@given(st.integers(0, 3_000))
def test_text_listing_cut_off_is_never_shorter_by_whole_jobs_without_notice(end):
    model = TorqueModel(TorqueSite(scheduler_interval_s=1))
    for _ in range(2):
        model.submit(0.0, Submission("alice", "n", "x"))
    whole = render_full(model.jobs.values(), 1.0, model.site, one_line=True)
    cut = whole[: min(end, len(whole) - 1)]
    read = torque.parse_listing(Reply(0, cut, ""), "sim", None)
    blocks = cut.count("\n\n")
    # A text of whole blocks cannot be told from a complete one: why the XML form is asked for.
    assert not isinstance(read, Listing) or (cut.endswith("\n\n") and len(read.jobs) == blocks)
