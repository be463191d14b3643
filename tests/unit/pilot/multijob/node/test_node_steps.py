"""The order of a job's steps and of a placement is the protocol."""

from __future__ import annotations

import pytest
from simfiles import SimFiles

from pilot.multijob.node.files import CopyNew, Exists, Link, Pause, Sum
from pilot.multijob.node.manifest import Job, Kind, PayloadStep, Place
from pilot.multijob.node.steps import (
    TRY_AGAIN_S,
    Collect,
    Collected,
    Line,
    PayloadEnd,
    RunPayload,
    job_steps,
    placement_steps,
)

KIND = Kind("plain", False, None, (), None, None)
JOB = Job(7, 1, KIND, 1.0, ("x",), {}, (), None)
END = PayloadEnd(0, None, None, 1.0, 0.5, 10.0, "a", "b")
COLLECTED = Collected(None, (), None, None, (), "")
PLACE = Place("o", "out/o")


class Node(SimFiles):
    """Simulated files and a payload that always ends well."""

    end = END

    def _Line(self, operation):
        return None

    def _RunPayload(self, operation):
        return self.end

    def _Collect(self, operation):
        return COLLECTED

    def kinds(self):
        return [type(operation).__name__ for operation in self.log]


def node():
    sim = Node()
    sim.put("d/manifest.json", "{}")
    return sim


def test_line_then_look_then_payload_then_line():
    sim = node()
    result = sim.run(job_steps("d", JOB, 3))
    assert sim.kinds() == ["Line", "Exists", "Exists", "RunPayload", "Collect", "Line"]
    assert [op.kind for op in sim.log if isinstance(op, Line)] == ["job_started", "job_ended"]
    assert sim.log[0].body == {"panda_id": 7, "attempt_nr": 1, "slot": 3}
    assert result.facts is not None
    assert result.facts["exit_code"] == 0


@pytest.mark.parametrize("moment", [Line, Exists])
def test_closed_written_by_the_time_of_the_look_starts_nothing(moment):
    """The agent hung before or in its start line; the pilot closed meanwhile and has read the evidence."""
    sim = node()
    sim.before = lambda operation: sim.put("d/closed", "") if isinstance(operation, moment) else None
    assert sim.run(job_steps("d", JOB, 0)).closed
    assert "RunPayload" not in sim.kinds()
    assert sim.kinds()[0] == "Line"


def test_bundle_that_is_gone_starts_nothing():
    sim = Node()
    assert sim.run(job_steps("d", JOB, 0)).closed


def test_look_that_fails_is_tried_again_and_never_means_open():
    sim = node()

    def fail(operation):
        if isinstance(operation, Exists):
            raise OSError(116, "Stale file handle")

    sim.before = fail
    with pytest.raises(OSError, match="Stale"):
        sim.run(job_steps("d", JOB, 0))
    assert "RunPayload" not in sim.kinds()
    assert sim.slept_s == sum(TRY_AGAIN_S)


@pytest.mark.parametrize(
    ("end", "outputs", "log"),
    [
        ({}, True, True),
        ({"exit_code": 1}, False, True),
        ({"exit_code": None, "signal": 9}, False, True),
        ({"ended_by": "deadline"}, False, True),
        ({"ended_by": "killed"}, False, True),
        ({"ended_by": "closed"}, False, False),
        ({"ended_by": "terminated"}, False, False),
    ],
)
def test_what_is_placed_of_a_payload(end, outputs, log):
    sim = node()
    sim.end = END._replace(**end)
    sim.run(job_steps("d", JOB, 0))
    [collect] = [op for op in sim.log if isinstance(op, Collect)]
    assert (collect.place_outputs, collect.place_log) == (outputs, log)
    assert isinstance(sim.log[3], RunPayload)


def place(sim):
    return sim.run(placement_steps("d", "work/o", 3, PLACE, "out/.part"))


def with_source():
    sim = node()
    sim.put("work/o", "abc")
    return sim


def test_placed_with_size_and_checksum_and_no_temp_left():
    sim = with_source()
    assert place(sim) == {"lfn": "o", "size": 3, "adler32": "sum of abc", "placed": True, "reason": None}
    assert sim.text("out/o") == "abc"
    assert "out/.part" not in sim.inodes


def test_look_comes_after_the_copy_and_right_before_the_link():
    sim = with_source()
    place(sim)
    kinds = sim.kinds()
    assert kinds[kinds.index("Link") - 2 : kinds.index("Link")] == ["Exists", "Exists"]
    assert kinds.index("CopyNew") < kinds.index("Exists")


def test_closed_during_the_copy_places_nothing():
    sim = with_source()
    sim.after = lambda operation: sim.put("d/closed", "") if isinstance(operation, CopyNew) else None
    entry = place(sim)
    assert (entry["placed"], entry["reason"]) == (False, "closed")
    assert "out/o" not in sim.inodes
    assert "out/.part" not in sim.inodes


def test_never_overwrites():
    sim = with_source()
    sim.put("out/o", "other")
    entry = place(sim)
    assert (entry["placed"], entry["reason"]) == (False, "the target exists with other content")
    assert sim.text("out/o") == "other"


def test_same_content_is_placed():
    sim = with_source()
    sim.put("out/o", "abc")
    assert place(sim)["placed"]
    assert any(isinstance(operation, Sum) for operation in sim.log)


def test_lost_reply_of_the_link_is_placed():
    sim = with_source()

    def lose(operation):
        if isinstance(operation, Link):
            raise FileExistsError("asked again")

    sim.after = lose
    assert place(sim)["placed"]
    assert not any(isinstance(operation, Sum) for operation in sim.log)


def test_failing_link_once_is_tried_again():
    sim = with_source()
    left = [OSError(5, "Input/output error")]

    def fail(operation):
        if isinstance(operation, Link) and left:
            raise left.pop()

    sim.before = fail
    assert place(sim)["placed"]
    assert sim.slept_s == TRY_AGAIN_S[0]


def test_failing_link_always_is_given_up_with_the_reason_and_the_size():
    sim = with_source()

    def fail(operation):
        if isinstance(operation, Link):
            raise OSError(28, "No space left on device")

    sim.before = fail
    entry = place(sim)
    assert (entry["size"], entry["placed"]) == (3, False)
    assert "No space left" in entry["reason"]
    assert sum(isinstance(operation, Pause) for operation in sim.log) == len(TRY_AGAIN_S)
    assert "out/.part" not in sim.inodes


def test_failed_copy_is_not_a_missing_output():
    sim = with_source()

    def fail(operation):
        if isinstance(operation, CopyNew):
            raise OSError(28, "No space left on device")

    sim.before = fail
    entry = place(sim)
    assert (entry["size"], entry["adler32"], entry["placed"]) == (3, None, False)


def test_error_that_no_later_try_can_cure_is_tried_once():
    sim = with_source()

    def fail(operation):
        if isinstance(operation, CopyNew):
            raise PermissionError(13, "Permission denied")

    sim.before = fail
    assert not place(sim)["placed"]
    assert sim.slept_s == 0


STEPS = (PayloadStep("a", ("a",)), PayloadStep("b", ("b",)), PayloadStep("c", ("c",), None, True))
SIGNALLED = END._replace(exit_code=None, signal=9)


def run_steps_of(*ends):
    """The steps that were begun, and the facts, when they end like this one after the other."""
    sim, left = node(), list(ends)
    sim._RunPayload = lambda operation: left.pop(0)
    result = sim.run(job_steps("d", JOB._replace(steps=STEPS), 3))
    begun = [operation.step for operation in sim.log if isinstance(operation, RunPayload)]
    return begun, result.facts


def code(number, **more):
    return END._replace(exit_code=number, **more)


@pytest.mark.parametrize(
    ("ends", "begun", "exit_code", "signal"),
    [
        ((code(0), code(0), code(0)), [0, 1, 2], 0, None),
        ((code(0), code(5), code(0)), [0, 1, 2], 5, None),
        ((code(4), code(0)), [0, 2], 4, None),
        ((code(4), code(5)), [0, 2], 4, None),
        ((code(0), code(0), code(6)), [0, 1, 2], 6, None),
        ((SIGNALLED, code(5)), [0, 2], None, 9),
        ((code(5), SIGNALLED), [0, 2], 5, None),
        ((code(0), code(0, ended_by="killed")), [0, 1], 0, None),
        ((code(3), code(0, ended_by="deadline")), [0, 2], 3, None),
    ],
)
def test_the_first_failed_step_decides_whatever_follows(ends, begun, exit_code, signal):
    ran, facts = run_steps_of(*ends)
    assert ran == begun
    assert (facts["exit_code"], facts["signal"]) == (exit_code, signal)
    assert facts["ended_by"] == ends[-1].ended_by
    assert [item["exit_code"] for item in facts["steps"]] == [end.exit_code for end in ends]


def test_times_of_steps_add_up_and_the_largest_memory_counts():
    one = code(0, wall_s=1.0, cpu_s=0.5, rss_mib=90.0, start_utc="t1", end_utc="t2")
    two = code(0, wall_s=2.0, cpu_s=1.5, rss_mib=10.0, start_utc="t3", end_utc="t4")
    _, facts = run_steps_of(one, two, two)
    assert (facts["wall_s"], facts["cpu_s"], facts["rss_mib"]) == (5.0, 3.5, 90.0)
    assert (facts["start_utc"], facts["end_utc"]) == ("t1", "t4")
