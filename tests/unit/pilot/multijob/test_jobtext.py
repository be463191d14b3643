"""Job parameters are words, never a shell's text; outputs never leave their root."""

from __future__ import annotations

import pytest
from rig import EXPERIMENT

from pilot.experiments.jobtext import BadJobText, InputSum, parse_job_text
from pilot.experiments.words import place_outputs

ENVIRONMENT = {"COMPASS_SW_PREFIX": "/out/", "COMPASS_SW_PATH": "prod/", "PRODSOFT": "soft", "prodSlt": "3"}


def test_leading_assignments_are_environment() -> None:
    text = parse_job_text("PRODSYS_WORK=w.1 PRODSYS_NEVENTS=12 A='x; rm -rf /' reco --raw 'a b' B=c")
    assert text.environment["A"] == "x; rm -rf /"
    assert text.argv == ("reco", "--raw", "a b", "B=c")
    assert (text.work, text.n_events) == ("w.1", 12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A=1",
        "reco 'open",
        "reco\nrm",
        "reco \x00",
        "PRODSYS_NEVENTS=x reco",
        "PRODSYS_WORK='a/b' reco",
        "x" * 70000,
    ],
)
def test_text_that_cannot_run_is_refused(text: str) -> None:
    with pytest.raises(BadJobText):
        parse_job_text(text)


def test_inputs_are_absolute_without_dots() -> None:
    assert parse_job_text("PRODSYS_INPUTS=/a:/b x").inputs == ("/a", "/b")
    for bad in ("a", "/a/../b"):
        with pytest.raises(BadJobText):
            parse_job_text(f"PRODSYS_INPUTS={bad} x")


@pytest.mark.parametrize(
    ("sums", "found"),
    [
        ("5,7:0A1b2c3d", (InputSum(5), InputSum(7, "0a1b2c3d"))),
        (",7", (InputSum(), InputSum(7))),
        (",", (InputSum(), InputSum())),
    ],
)
def test_sizes_and_checksums_of_inputs_stand_in_their_order(sums: str, found: tuple[InputSum, ...]) -> None:
    assert parse_job_text(f"PRODSYS_INPUTS=/a:/b PRODSYS_INPUT_SUMS={sums} x").sums == found
    assert parse_job_text("PRODSYS_INPUTS=/a:/b x").sums == (InputSum(), InputSum())


@pytest.mark.parametrize("sums", ["", "5", "5,6,7", "5,x", "5,6:7", "-1,5", "5,6:0a1b2c3d4", "5,:0a1b2c3d"])
def test_sums_that_are_not_those_of_the_inputs_are_refused(sums: str) -> None:
    with pytest.raises(BadJobText, match="PRODSYS_INPUT_SUMS"):
        parse_job_text(f"PRODSYS_INPUTS=/a:/b PRODSYS_INPUT_SUMS={sums} x")


def test_outputs_go_where_the_experiment_says() -> None:
    placed = place_outputs(
        EXPERIMENT, "/out", ENVIRONMENT, ("mDST-274495-11001-3-8.a2.root", "evtdump3-11001-274495.raw")
    )
    assert not isinstance(placed, str)
    assert [place.target for place in placed] == [
        "/out/prod/soft/mDST.chunks/mDST-274495-11001-3-8.a2.root",
        "/out/prod/soft/evtdump/slot3/evtdump3-11001-274495.raw",
    ]


@pytest.mark.parametrize("lfn", ["../x.root", "a/b", ".hidden", "", "mDST-1-2-3-4.root\n", "unknown.txt"])
def test_strange_output_names_are_refused(lfn: str) -> None:
    assert isinstance(place_outputs(EXPERIMENT, "/out", ENVIRONMENT, (lfn,)), str)


@pytest.mark.parametrize("prefix", ["/etc/", "/out/../etc/", "", "out/"])
def test_outputs_never_leave_the_output_root(prefix: str) -> None:
    environment = {**ENVIRONMENT, "COMPASS_SW_PREFIX": prefix}
    assert isinstance(place_outputs(EXPERIMENT, "/out", environment, ("mDST-1-2-3-4.root",)), str)
