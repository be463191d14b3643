"""report.html in headless Chromium: works without network, shows the nodes, the dead one and the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulators.demo.evidence import ChunkOutput, Evidence, NodeJournal, TapeFile
from simulators.demo.report import render_report
from simulators.demo.screenshot import CHROMIUM, take

HOSTILE = "<script>document.title='hacked'</script>"


def stamp(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000000Z"


def line(kind: str, second: int, **body: Any) -> tuple[str, dict[str, Any]]:
    return kind, {"kind": kind, "utc": stamp(second), **body}


def evidence() -> Evidence:
    argv = ["agent", "--bundle", "/x/bundles/abcdefgh2", "--round", "1", "--node"]
    events = (
        {"event": "server_started", "utc": stamp(0), "t": 0.0},
        {"event": "submitted", "utc": stamp(1), "t": 1.0, "batch_id": "1.sim", "name": HOSTILE},
        {"event": "rank_started", "utc": stamp(2), "t": 2.0, "node": "nid00001", "argv": [*argv, "0"]},
        {"event": "rank_started", "utc": stamp(2), "t": 2.0, "node": "nid00002", "argv": [*argv, "1"]},
        {"event": "node_died", "utc": stamp(9), "t": 9.0, "node": "nid00002"},
    )
    first = NodeJournal(
        "abcdefgh2",
        0,
        (
            line("caldb_ready", 3, backend="mariadb", ready_s=0.2),
            line("job_started", 3, panda_id=1, slot=0),
            line("job_ended", 8, panda_id=1, slot=0, exit_code=0, ended_by=None, wall_s=5.0),
        ),
    )
    second = NodeJournal("abcdefgh2", 1, (line("job_started", 4, panda_id=2, slot=1),))
    job = {
        "panda_id": 1,
        "status": "finished",
        "attempt_nr": 1,
        "job_name": HOSTILE,
        "attributes": {"transformation": HOSTILE},
        "files": [],
    }
    return Evidence(
        {"cdr11001-274495.raw": 12},
        (job,),
        (first, second),
        ("abcdefgh2",),
        (ChunkOutput("mDST-274495-11001-3-8.a1.root", 5, 12),),
        (TapeFile("mDST-274495-3-8.root", 5, 12, True),),
        (),
        events,
        0,
        2,
    )


SUMMARY = {
    "raw_files": 1,
    "events_raw": 12,
    "events_reconstructed": 12,
    "events_merged": 12,
    "node_killed": {"node": "nid00002", "at_s": 9.0, "jobs_kept": 0, "jobs_returned": 1},
}

chromium = pytest.mark.skipif(
    not Path(CHROMIUM).exists(), reason="chromium is not installed (Debian package chromium)"
)


@chromium
def test_the_page_works_without_network_and_shows_the_dead_node(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(SUMMARY, evidence(), []))
    text, asked = take(page, tmp_path / "report.png")
    assert asked == []
    assert "nid00001" in text
    assert "nid00002 †" in text
    assert "Node nid00002 died at 9.0 s" in text
    assert "All conditions hold." in text
    assert (tmp_path / "report.png").stat().st_size > 10_000


@chromium
def test_broken_conditions_and_hostile_names_are_text(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(SUMMARY, evidence(), [f"jobs_failed {HOSTILE}"]))
    text, _ = take(page, None)
    assert "Does not hold" in text
    assert HOSTILE in text


def test_nothing_untrusted_becomes_markup() -> None:
    page = render_report(SUMMARY, evidence(), [HOSTILE])
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_an_empty_evidence_is_a_page_too() -> None:
    nothing = Evidence({}, (), (), (), (), (), (), (), 0, 0)
    assert "Does not hold" in render_report({}, nothing, ["nothing ran"])
