"""The reconstruction as a job: what it leaves, that the constants matter, and one exit code per cause."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulators.payload import dump, histograms, mdst
from simulators.payload.exits import Exit
from simulators.payload.trace import read_traces

FILES = ("--mdst", "m.root", "--hist", "h.root", "--dump", "d.raw")
FIRST, SECOND = "cdr11001-274495.raw", "cdr11001-274496.raw"


def test_products_stdout_and_trace_agree_on_the_events(
    payload_site: Any, run_payload: Any, tmp_path: Path
) -> None:
    (tmp_path / "trace").mkdir()
    (tmp_path / "work").mkdir()
    identity = {
        "PANDA_ID": "7",
        "PANDA_ATTEMPT": "1",
        "PRODSYS_WORK": "w",
        "SIM_TRACE_DIR": str(tmp_path / "trace"),
    }
    environment = payload_site.environment(**identity)
    done = run_payload(
        tmp_path / "work", environment, "reconstruct", "--raw", payload_site.raw / FIRST, *FILES
    )
    assert (done.returncode, done.stderr) == (0, "")
    events = payload_site.events[FIRST]
    lines = done.stdout.splitlines()
    assert f"{events} events had been read" in lines
    assert "120 calibrations of run 274495 had been fetched" in lines
    assert lines[-2:] == [f"{events} events had been written to miniDST", "End of Job"]
    assert sorted(os.listdir(tmp_path / "work")) == ["d.raw", "h.root", "m.root"]
    assert mdst.count_entries(tmp_path / "work" / "m.root") == events
    filled = histograms.read_histograms(tmp_path / "work" / "h.root")
    assert histograms.count_events(filled) == events
    assert sum(key.startswith("pull_") for key in filled) == 40
    (trace,) = read_traces(tmp_path / "trace")
    assert (trace.panda_id, trace.attempt, trace.work, trace.exit_code) == (7, 1, "w", 0)


def test_mdst_holds_the_events_of_its_raw_file_in_order(products: Any) -> None:
    columns = mdst.read_mdst(products.mdst[SECOND])
    assert set(columns["run"].tolist()) == {274496}
    assert set(columns["chunk"].tolist()) == {11001}
    assert columns["event"].tolist() == list(range(len(columns["event"])))
    counts = np.array([len(tracks) for tracks in columns["track"]])
    assert 1.2 < counts.mean() < 1.5
    assert counts.max() == 3
    assert (np.isnan(columns["pull"]).all(axis=1) == (counts == 0)).all()


def test_dump_holds_the_events_with_three_tracks_and_the_quiet_chunk_none(
    payload_site: Any, products: Any
) -> None:
    empty = 0
    for name, path in products.dump.items():
        columns = mdst.read_mdst(products.mdst[name])
        selected = sum(len(tracks) >= dump.TRACKS_MIN for tracks in columns["track"])
        assert dump.count_events(path) == selected
        empty += path.read_bytes() == dump.PLACEHOLDER
        assert (path.stat().st_size == 33) == (selected == 0)
    assert empty == 1


def test_residuals_are_centred_with_the_constants_of_the_run(products: Any) -> None:
    for path in products.hist.values():
        means = histograms.residual_means(path)
        assert len(means) == 40
        assert max(abs(mean) for mean in means.values()) < 0.1


@pytest.mark.parametrize(("name", "other"), [(FIRST, 274496), (SECOND, 274495)])
def test_residuals_are_off_by_five_resolutions_with_the_constants_of_another_run(
    payload_site: Any, tmp_path: Path, name: str, other: int
) -> None:
    from simulators.payload.reconstruct import Reconstruction, reconstruct

    paths = [tmp_path / kind for kind in ("m.root", "h.root", "d.raw")]
    job = Reconstruction(payload_site.raw / name, *paths, calibrations_of_run=other)
    reconstruct(job, payload_site.environment())
    means = histograms.residual_means(paths[1])
    assert len(means) == 40
    assert min(abs(mean) for mean in means.values()) > 5


def test_chi2_is_that_of_a_right_model(products: Any) -> None:
    histogram = histograms.read_histograms(products.hist[FIRST])["chi2_ndf"]
    mean = float((histogram.values() * histogram.axes[0].centers).sum() / histogram.sum())
    assert 0.9 < mean < 1.1


def test_zero_event_file_gives_empty_products(payload_site: Any, run_payload: Any, tmp_path: Path) -> None:
    (name,) = [name for name, events in payload_site.events.items() if not events]
    words = ("reconstruct", "--raw", payload_site.raw / name, *FILES)
    done = run_payload(tmp_path, payload_site.environment(), *words)
    assert done.returncode == 0
    assert "0 events had been written to miniDST" in done.stdout.splitlines()
    assert mdst.count_entries(tmp_path / "m.root") == 0
    assert histograms.count_events(histograms.read_histograms(tmp_path / "h.root")) == 0
    assert (tmp_path / "d.raw").read_bytes() == dump.PLACEHOLDER


def cut_file(site: Any, directory: Path) -> Path:
    path = directory / "cut.raw"
    path.write_bytes((site.raw / FIRST).read_bytes()[:100_000])
    return path


# name: (raw file, environment over the site's, more words, exit code, what stderr starts with)
FAILURES: dict[str, tuple[Any, dict[str, str], tuple[str, ...], Exit, str]] = {
    "no-raw-file": ("/nowhere/x.raw", {}, (), Exit.INPUT_MISSING, "cannot read /nowhere/x.raw: No such file"),
    "not-a-raw-file": (__file__, {}, (), Exit.RAW_DAMAGED, f"{__file__}: not a raw file"),
    "truncated": (cut_file, {}, (), Exit.RAW_DAMAGED, "CUT: truncated in block"),
    "no-database": (FIRST, {"CDB_SQLITE": ""}, (), Exit.NO_DATABASE, "can't connect to CDB database"),
    "no-constants": (
        FIRST, {}, ("--calibrations-of-run", "274600"), Exit.CALIBRATION_MISSING,
        "calibration missing for MM01X1__/align, run 274600",
    ),
    "no-directory": (FIRST, {}, ("--hist", "none/h.root"), Exit.OUTPUT_FAILED, "cannot write none/h.root: No such"),
    "no-identity": (FIRST, {"SIM_TRACE_DIR": "."}, (), Exit.USAGE, "SIM_TRACE_DIR is set and PANDA_ID is ''"),
    "no-trace-directory": (
        FIRST, {"SIM_TRACE_DIR": "/nowhere", "PANDA_ID": "1", "PANDA_ATTEMPT": "1"}, (), Exit.TRACE_FAILED,
        "cannot write the trace /nowhere/",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_each_cause_has_its_exit_code_one_line_and_no_end_marker(
    payload_site: Any, run_payload: Any, tmp_path: Path, name: str
) -> None:
    raw, more, words, code, message = FAILURES[name]
    trace = tmp_path / "trace"
    trace.mkdir()
    (tmp_path / "work").mkdir()
    path = raw(payload_site, tmp_path) if callable(raw) else payload_site.raw / raw
    environment = {"SIM_TRACE_DIR": str(trace), "PANDA_ID": "1", "PANDA_ATTEMPT": "1"}
    if "SIM_TRACE_DIR" in more:
        environment = {}
    environment = payload_site.environment(**environment) | more
    done = run_payload(tmp_path / "work", environment, "reconstruct", "--raw", path, *FILES, *words)
    assert done.returncode == code
    assert done.stderr.startswith(message.replace("CUT", str(tmp_path / "cut.raw")))
    assert done.stderr.count("\n") == 1
    assert "End of Job" not in done.stdout
    assert not [entry for entry in os.listdir(tmp_path / "work") if entry != "m.root"]
    if "SIM_TRACE_DIR" not in more:
        (ended,) = read_traces(trace)
        assert ended.exit_code == code


def test_a_job_fails_instead_of_using_defaults(payload_site: Any, run_payload: Any, tmp_path: Path) -> None:
    """No variable names a database: nothing is written at all."""
    environment = {key: value for key, value in payload_site.environment().items() if key != "CDB_SQLITE"}
    done = run_payload(tmp_path, environment, "reconstruct", "--raw", payload_site.raw / FIRST, *FILES)
    assert done.returncode == Exit.NO_DATABASE
    assert "can't connect to CDB database" in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_killed_job_leaves_a_start_line_and_is_not_alive(payload_site: Any, tmp_path: Path) -> None:
    """The raw file is a FIFO that nobody writes: the job stands in its opening until it is killed."""
    (tmp_path / "trace").mkdir()
    os.mkfifo(tmp_path / "x.raw")
    identity = {"SIM_TRACE_DIR": str(tmp_path / "trace"), "PANDA_ID": "1", "PANDA_ATTEMPT": "1"}
    argv = [sys.executable, "-m", "simulators.payload", "reconstruct", "--raw", "x.raw", *FILES]
    job = subprocess.Popen(argv, cwd=tmp_path, env=payload_site.environment(**identity))
    try:
        # opening for writing waits until the job has opened it for reading
        descriptor = os.open(tmp_path / "x.raw", os.O_WRONLY)
        (running,) = read_traces(tmp_path / "trace")
        assert running.alive
        job.send_signal(signal.SIGKILL)
        job.wait()
        os.close(descriptor)
    finally:
        job.kill()
        job.wait()
    (ended,) = read_traces(tmp_path / "trace")
    assert (ended.alive, ended.end_ns, ended.exit_code) == (False, None, None)


def test_stdout_that_cannot_be_written_is_no_success(payload_site: Any, tmp_path: Path) -> None:
    argv = [
        sys.executable,
        "-m",
        "simulators.payload",
        "reconstruct",
        "--raw",
        str(payload_site.raw / FIRST),
        *FILES,
    ]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            argv,
            cwd=tmp_path,
            env=payload_site.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == Exit.OUTPUT_FAILED
    assert done.stderr == b"cannot write to stdout: No space left on device\n"


def test_same_input_same_content(payload_site: Any, products: Any, tmp_path: Path) -> None:
    from simulators.payload.reconstruct import Reconstruction, reconstruct

    paths = [tmp_path / kind for kind in ("m.root", "h.root", "d.raw")]
    reconstruct(Reconstruction(payload_site.raw / FIRST, *paths), payload_site.environment())
    first, again = mdst.read_mdst(products.mdst[FIRST]), mdst.read_mdst(paths[0])
    assert np.array_equal(first["pull"], again["pull"], equal_nan=True)
    assert first["track"].to_list() == again["track"].to_list()
    assert paths[2].read_bytes() == products.dump[FIRST].read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("write-raw", "--out", "x", "--catalogue", "c", "--seed", "-1"),
        ("write-raw", "--out", "x", "--catalogue", "c", "--seed", "1", "--runs", "0"),
        (
            "write-raw",
            "--out",
            "x",
            "--catalogue",
            "c",
            "--seed",
            "1",
            "--min-events",
            "9",
            "--max-events",
            "8",
        ),
        ("write-raw", "--out", "x", "--catalogue", "c", "--seed", "1", "--zero", "1"),
        ("write-calibrations", "--out", "x", "--seed", "1", "--size-mb", "30.5"),
        ("reconstruct", "--raw", "x"),
        ("merge-mdst", "--inputs-from", "l", "--out", "o", "--max-events", "1", "--max-bytes", "1"),
        ("merge-hist", "--inputs-from", "l", "--out", "o", "--max-events", "1"),
        (),
    ],
    ids=" ".join,
)
def test_wrong_arguments_write_nothing(
    run_payload: Any, payload_site: Any, tmp_path: Path, words: Any
) -> None:
    done = run_payload(tmp_path, payload_site.environment(), *words)
    assert done.returncode == Exit.USAGE
    assert done.stderr
    assert os.listdir(tmp_path) == []


def test_calibration_facts_are_json(payload_site: Any) -> None:
    facts = json.loads(payload_site.database.with_name("calibrations.json").read_text())
    assert facts["run_range"] == [274495, 274496]
