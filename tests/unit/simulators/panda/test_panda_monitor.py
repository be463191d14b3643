"""The simulated server's monitor page: what it counts, and that nothing on it is believed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from serverkit import Rig, positional, report

from simulators.panda.dispatch import HttpRequest
from simulators.panda.monitor import PATH, group_jobs, render_monitor, run_of
from simulators.panda.rules import Wish
from simulators.panda.service import PandaServer
from simulators.site.workload import Batch, render_job


def submitted(rig: Rig, *jobs: list[Any]) -> list[int]:
    ids = rig.submit(*jobs)
    rig.model.hand_out(Wish("Q", len(ids)))
    return ids


def of_run(number: int, attempt: int = 1, task: int = 270001) -> list[Any]:
    return render_job(Batch("w", 1, "Q", "/out", events=100, task=task), number, attempt)


def report_of(job: list[Any]) -> str:
    return report(tuple(entry[3] for entry in job[-1]))


def cells(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    return [[re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for row in rows]


def test_events_count_once_for_a_work_whatever_its_attempts() -> None:
    rig = Rig()
    first, retry, other = of_run(1), of_run(1, 2), of_run(2)
    failed, _ = submitted(rig, first, other)
    rig.finish(failed, None, "failed", pilotErrorCode=1305, pilotErrorDiag="ended with 3")
    (again,) = submitted(rig, retry)
    rig.model.update(again, "finished", 2, {"report": report_of(retry), "nEvents": 100})
    rig.later(11.0)
    (group,) = group_jobs(rig.model.jobs.values())
    assert (group.task, group.run) == ("270001", "270001")
    assert (sum(group.done.values()), sum(group.expected.values())) == (100, 200)
    assert group.statuses == {
        ("merging mdst", "failed"): 1,
        ("merging mdst", "finished"): 1,
        ("merging mdst", "sent"): 1,
    }
    page = render_monitor(rig.model, "")
    assert ["270001", "270001", "100", "200"] in cells(page)
    assert ["270001", "270001", "pilotErrorCode", "1305", "1"] in cells(page)
    attempts = [row for row in cells(render_monitor(rig.model, f"panda_id={again}")) if row]
    assert [(row[0], row[2], row[3]) for row in attempts] == [
        (str(failed), "1", "failed"),
        (str(again), "2", "finished"),
    ]
    assert "ended with 3" in attempts[0][-1]


def test_a_task_has_a_line_for_each_run_and_can_be_looked_at_alone() -> None:
    rig = Rig()
    submitted(rig, of_run(1, task=270001), of_run(1, task=270002))
    assert [group.run for group in group_jobs(rig.model.jobs.values())] == ["270001", "270002"]
    rows = cells(render_monitor(rig.model, "task=270002"))
    assert not [row for row in rows if "270001" in row]
    assert [row for row in rows if row and row[0].isdecimal() and row[2:4] == ["1", "sent"]]


@pytest.mark.parametrize(
    ("lfn", "run"),
    [
        ("mDST-274495-11001-3-8.a1.root", "274495"),
        ("274495-11001-3.a1.root", "274495"),
        ("evtdump3-11001-274495.a1.raw", "274495"),
        ("evtdump3-274495.a1.raw.001", "274495"),
        ("histsum-274495-3-8.root", "274495"),
        ("a.root", "-"),
    ],
)
def test_the_run_stands_in_the_names_of_outputs(lfn: str, run: str) -> None:
    rig = Rig()
    job = positional()
    job[-1][0][3] = lfn
    assert run_of(rig.model.jobs[rig.submit(job)[0]]) == run


def test_what_submitters_and_pilots_say_is_escaped() -> None:
    rig = Rig()
    evil = "<script>alert(1)</script>"
    job = positional(jobName=evil, transformation=evil)
    (panda_id,) = submitted(rig, job)
    rig.finish(panda_id, None, "failed", pilotErrorCode=1, pilotErrorDiag=evil, batchID=evil)
    for query in ("", "task=900", f"panda_id={panda_id}", f"panda_id={evil}", f"task={evil}"):
        assert evil not in render_monitor(rig.model, query)


def test_a_text_where_a_number_belongs_breaks_no_page_and_is_not_shown() -> None:
    rig = Rig()
    evil = "<b>x</b>"
    (panda_id,) = submitted(rig, positional(jobParameters="reco"))
    job = rig.model.jobs[panda_id]
    job.attributes |= {"nEvents": evil, "pilotErrorCode": evil}
    for status in ("finished", "failed"):
        job.status = status
        for query in ("", "task=900", f"panda_id={panda_id}"):
            assert evil not in render_monitor(rig.model, query)


def test_the_page_is_served() -> None:
    rig = Rig()
    submitted(rig, of_run(1))
    server = PandaServer(rig.model)
    reply = server.answer(HttpRequest("GET", PATH, "", {}, b""))
    assert (reply.status, reply.content_type) == (200, "text/html; charset=utf-8")
    assert "270001" in reply.text
    assert server.answer(HttpRequest("GET", PATH, "panda_id=5", {}, b"")).text.count("no such job") == 1


def test_a_work_without_a_key_is_known_by_its_job_name() -> None:
    rig = Rig()
    names = [positional(jobName="task-7-1"), positional(jobName="task-7-2"), positional(jobName="task-8-1")]
    ids = rig.submit(*names)
    page = render_monitor(rig.model, f"panda_id={ids[0]}")
    assert [row[0] for row in cells(page) if row] == [str(ids[0]), str(ids[1])]
