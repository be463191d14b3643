"""Properties of the node side: any number of starts, any pieces, any list of jobs."""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pilot.multijob.node.gate import Start, gate_steps
from pilot.multijob.node.journal import render_line
from pilot.multijob.node.manifest import Job, Kind, Limits, Pattern
from pilot.multijob.node.plan import EndAgent, GiveBack, NodeState, Running, StartJob, decide
from pilot.multijob.node.scan import PayloadScan

sys.path.insert(0, str(Path(__file__).parents[4] / "unit/pilot/multijob/node"))
from simfiles import SimFiles


@given(st.integers(2, 5), st.lists(st.integers(0, 4), max_size=60), st.sampled_from(["link", "weak"]))
def test_at_most_one_start_launches_whatever_the_order(starts, turns, fencing):
    """Each turn lets one start carry out one operation on the shared files; then all run to their ends."""
    sim = SimFiles()
    waiting, running, launched = {}, {}, []
    for number in range(starts):
        running[number] = gate_steps("d", 1, Start("7.t", "h", number, f"n{number}", "u"), fencing, 30.0)

    def turn(number):
        if number not in running:
            return
        steps = running[number]
        try:
            if number not in waiting:
                waiting[number] = next(steps)
                return
            try:
                reply = sim.perform(waiting[number])
            except OSError as error:
                waiting[number] = steps.throw(error)
            else:
                waiting[number] = steps.send(reply)
        except StopIteration as stop:
            del running[number]
            if stop.value.launch:
                launched.append(number)

    # With weak fencing the wait outlasts what others need to write their marks: all write first.
    if fencing == "weak":
        for number in range(starts):
            turn(number)
            turn(number)
    for number in turns:
        turn(number)
    while running:
        for number in list(running):
            turn(number)
    assert len(launched) == (1 if fencing == "link" else 0)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=5))
def test_any_body_makes_one_line_that_reads_back(body):
    line = render_line(1, "k", "u", 0.0, body)
    assert line.count(b"\n") == 1
    crc, text = line[:-1].split(b" ", 1)
    assert int(crc, 16) == zlib.crc32(text)
    assert {name: json.loads(text)[name] for name in body} == body


KIND = Kind("k", False, Pattern("", "stdout", "End of Job"), (), r"^(\d+) read", None)


@given(st.lists(st.sampled_from([b"End of", b" Job", b"\n", b"12", b" read", b"x"]), max_size=30), st.data())
def test_findings_do_not_depend_on_how_the_text_comes(words, data):
    text = b"".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    results = []
    for ends in ([len(text)], [*cuts, len(text)]):
        scan, at = PayloadScan(KIND), 0
        for end in ends:
            scan.streams["stdout"].feed(text[at:end])
            at = end
        scan.streams["stdout"].end()
        results.append(scan.findings())
    assert results[0] == results[1]


PLAIN = Kind("plain", False, None, (), None, None)
JOBS = st.lists(st.tuples(st.floats(0, 120), st.booleans()), max_size=12)


@given(JOBS, st.integers(1, 4), st.floats(0, 110), st.sampled_from(["none", "starting", "ready", "failed"]))
def test_every_pending_job_is_started_or_given_back_or_waits_for_a_reason(jobs, slots, now_s, caldb):
    pending = tuple(
        Job(n, 1, PLAIN._replace(needs_caldb=needs), predicted_s, ("x",), {}, (), None)
        for n, (predicted_s, needs) in enumerate(jobs)
    )
    state = NodeState(pending=pending, caldb=caldb, caldb_due_s=1000.0)
    actions = decide(state, now_s, Limits(margin_s=10.0), slots, 100.0)
    started = [action.job for action in actions if isinstance(action, StartJob)]
    back = [job for action in actions if isinstance(action, GiveBack) for job in action.jobs]
    assert len({job.panda_id for job in started + back}) == len(started) + len(back)
    assert all(now_s + job.predicted_s <= 90.0 for job in started)
    left = [job for job in pending if job not in started and job not in back]
    ended = any(isinstance(action, EndAgent) for action in actions)
    assert not (ended and left)
    for job in left:
        assert len(started) == slots or (job.kind.needs_caldb and caldb in ("none", "starting"))
    running = tuple(Running(job, slot, now_s) for slot, job in enumerate(started))
    again = state._replace(pending=tuple(left), running=running)
    repeated = decide(again, now_s, Limits(margin_s=10.0), slots, 100.0)
    assert not [action for action in repeated if isinstance(action, (StartJob, GiveBack))], (
        "said once, done once"
    )
