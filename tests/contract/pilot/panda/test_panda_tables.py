"""One table of PanDA's words (pilot/panda/*.yaml); client, core, prodsys and simulator are held to it."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import yaml

from pilot.multijob import adoption, reporting
from pilot.panda import legacy, v1
from pilot.panda.transport import read_answer
from pilot.ports import Ack, Broken, Failure, Fetched, JobStatus, PandaId, Refused, Unavailable, Update
from simulators.panda import job as simulated
from simulators.panda.rules import END_CODES, PILOT_STATES


def load(package: str, *path: str) -> Any:
    return yaml.safe_load(resources.files(package).joinpath(*path).read_text("utf-8"))


WORDS = load("pilot", "panda", "statuses.yaml")
CODES = load("pilot", "panda", "codes.yaml")
PRODSYS_WORDS = load("prodsys_core", "data", "panda.yaml")
PRODSYS_CODES = load("prodsys_core", "data", "codes.yaml")["codes"]
COMPASS = load("pilot", "experiments", "compass.yaml")
EXPERIMENT_NUMBERS = range(1230, 1300)
OUTCOMES: dict[str, type] = {"unavailable": Unavailable, "refused": Refused, "broken": Broken}
UPDATE = Update(PandaId(5), 1, JobStatus.RUNNING, "Q")


def words(phase: str) -> set[str]:
    return {name for name, item in WORDS["statuses"].items() if item["phase"] == phase}


@pytest.mark.parametrize("phase", ["waiting", "running", "ended"])
def test_a_status_means_the_same_to_prodsys(phase: str) -> None:
    assert words(phase) == set(PRODSYS_WORDS[phase])


def test_the_pilot_reports_only_what_the_server_takes() -> None:
    allowed = {name for name, item in WORDS["statuses"].items() if item["report"]}
    assert {status.value for status in JobStatus} == allowed
    assert allowed < PILOT_STATES


def test_the_core_and_the_simulator_know_which_statuses_are_ends() -> None:
    assert words("ended") > reporting._OVER
    assert not words("ended") & adoption.ALIVE
    assert words("ended") == simulated.FINAL
    assert PILOT_STATES <= WORDS["statuses"].keys()


@pytest.mark.parametrize(("code", "item"), WORDS["status_codes"].items())
def test_the_client_takes_a_status_code_as_the_table_says(code: int, item: dict[str, str]) -> None:
    found = legacy.parse_fetch(f"StatusCode={code}&jobs=%5B%5D", "Q")
    ack = legacy.parse_item(UPDATE, f"StatusCode={code}&command=NULL")
    assert ack.accepted is (code == 0)
    if item["outcome"] in ("answer", "none"):
        assert found == Fetched(())
    else:
        assert type(found) is OUTCOMES[item["outcome"]]


def test_a_status_code_that_is_in_no_table_is_broken() -> None:
    assert isinstance(legacy.parse_fetch("StatusCode=77", "Q"), Broken)


@pytest.mark.parametrize("command", [*WORDS["commands"], None])
def test_status_code_0_with_any_command_is_accepted(command: str | None) -> None:
    item = {"success": True, "message": "", "data": {"StatusCode": 0, "command": command}}
    word = "" if command in (None, "NULL") else str(command)
    assert v1.parse_item(UPDATE, item) == Ack(PandaId(5), 1, True, word)


@pytest.mark.parametrize("item", WORDS["messages"], ids=lambda item: item["text"])
def test_the_client_takes_a_message_as_the_table_says(item: dict[str, str]) -> None:
    text = f'{{"success": false, "message": "{item["text"]}", "data": null}}'
    found: Fetched | Failure = v1.parse_fetch(text, "Q")
    if item["outcome"] == "none":
        assert found == Fetched(())
    else:
        assert type(found) is OUTCOMES[item["outcome"]]


def test_a_refused_token_or_method_is_a_definite_no() -> None:
    assert isinstance(read_answer("/x", 403, b"ERROR : method x is forbidden"), Refused)


CODE_LINES = [(field, number, item) for field, codes in CODES.items() for number, item in codes.items()]


@pytest.mark.parametrize(("field", "number", "item"), CODE_LINES, ids=lambda value: str(value)[:24])
def test_a_code_costs_the_same_for_prodsys(field: str, number: int, item: dict[str, str]) -> None:
    assert item.keys() == {"name", "charge", "text"}
    assert PRODSYS_CODES[field][number]["charge"] == item["charge"]


@pytest.mark.parametrize("field", list(PRODSYS_CODES))
def test_prodsys_has_no_code_that_stands_nowhere_else(field: str) -> None:
    known = set(CODES.get(field, {}))
    others = set(PRODSYS_CODES[field]) - known
    assert not [number for number in others if number not in EXPERIMENT_NUMBERS]


def test_an_experiments_codes_agree_where_they_are_panda_s_and_keep_to_their_range_where_not() -> None:
    for item in COMPASS["codes"].values():
        known = CODES["pilotErrorCode"].get(item["number"])
        if known is None:
            assert item["number"] in EXPERIMENT_NUMBERS
        else:
            assert known["charge"] == item["charge"]


def test_names_of_codes_are_unique_in_their_field() -> None:
    for codes in CODES.values():
        names = [item["name"] for item in codes.values()]
        assert len(names) == len(set(names))


def test_what_the_simulator_blames_is_in_the_table_or_comes_with_closed() -> None:
    for rule in END_CODES.values():
        assert rule.error in CODES["taskBufferErrorCode"] or rule.status == "closed"
