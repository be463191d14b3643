"""Names as the original has them; words that no shell reads."""

import re
import shlex

import pytest

from prodsys_core import naming, tables
from prodsys_core.naming import ChunkNames, PieceNames, TaskNames

TASK = TaskNames(
    tables.products(),
    "dvcs2016",
    "mass production",
    2016,
    "/out/",
    "generalprod/",
    "soft1",
    3,
    8,
    "template.opt",
)
CHUNK = ChunkNames(274495, 11001, "cdr11001-274495.raw", "/raw/cdr11001-274495.raw")


def test_chunk_names_carry_the_attempt():
    assert TASK.outputs(CHUNK, 2) == {
        "mdst": "mDST-274495-11001-3-8.a2.root",
        "hist": "274495-11001-3.a2.root",
        "dump": "evtdump3-11001-274495.a2.raw",
        "log": "dvcs2016-274495-11001-3-8.a2.job.log.tgz",
    }


def test_first_piece_has_no_suffix():
    names = [TASK.final_name(PieceNames("mdst", 274495, piece)) for piece in (0, 1, 12)]
    assert names == ["mDST-274495-3-8.root", "mDST-274495-3-8.root.001", "mDST-274495-3-8.root.012"]
    merged = TASK.outputs(PieceNames("dump", 274495, 1), 2)
    assert merged == {
        "dump": "evtdump3-274495.a2.raw.001",
        "log": "dvcs2016-merge-dump-274495-ch001.a2.job.log.tgz",
    }


def test_mass_production_has_its_own_place_on_tape():
    assert TASK.tape_path("dump", "x") == "generalprod/oracle_dst/soft1/mergedDump/slot3/x"
    test = TaskNames(
        tables.products(), "d", "test production", 2016, "/out/", "generalprod/", "soft1", 3, 8, "t"
    )
    assert test.tape_path("mdst", "x") == "generalprod/soft1/mDST/x"


def test_parameters_are_environment_then_argv():
    lfns = TASK.outputs(CHUNK, 1)
    text = TASK.parameters(CHUNK, lfns, "python3 -m x --raw {raw} --out {mdst}", "w.1", 300)
    words = shlex.split(text)
    environment = dict(word.split("=", 1) for word in words[: words.index("python3")])
    assert words[words.index("python3") :] == [
        "python3",
        "-m",
        "x",
        "--raw",
        "/raw/cdr11001-274495.raw",
        "--out",
        "mDST-274495-11001-3-8.a1.root",
    ]
    assert environment["PRODSYS_WORK"] == "w.1"
    assert environment["PRODSYS_NEVENTS"] == "300"
    assert environment["TMPMDSTFILE"] == "mDST-274495-11001-3-8.a1.root"
    assert environment["COMPASS_SW_PREFIX"] + environment["COMPASS_SW_PATH"] + environment["PRODSOFT"] == (
        "/out/generalprod/soft1"
    )


def test_values_with_shell_characters_stay_one_word():
    chunk = ChunkNames(1, 1, "a b;c", "/raw/a b;$(c)")
    text = TASK.parameters(chunk, {"mdst": "m"}, "run {raw}", "w", None)
    assert shlex.split(text)[-1] == "/raw/a b;$(c)"


@pytest.mark.parametrize("command", ["", "x {nope}", "x {raw", "x 'y", "x {raw.__class__}", "x {0}"])
def test_bad_command_template_is_named(command):
    assert naming.command_problem(command, frozenset({"raw"}))


def test_job_names_differ_by_step_and_attempt():
    names = {TASK.job_name(CHUNK, step, attempt) for step in (1, 11) for attempt in (1, 2)}
    assert len(names) == 4
    assert "dvcs2016-2016--274495-11001-3-8-1-2" in names


def test_work_key_fits_its_rule():
    key = naming.work_key("demo", 5, "merge mdst", 77)
    assert key == "demo.5.merge-mdst.77"
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", key)
