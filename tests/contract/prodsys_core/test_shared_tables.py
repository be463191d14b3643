"""prodsys and the pilot meet over data: codes, places of files, statuses. They must not disagree."""

import re
from importlib import resources
from pathlib import Path

import pytest
import yaml

from prodsys_core import naming, tables

COMPASS = yaml.safe_load(resources.files("pilot").joinpath("experiments", "compass.yaml").read_text("utf-8"))
SAMPLES = naming.TaskNames(
    tables.products(), "prod", "mass production", 2016, "/out/", "gp/", "soft", 3, 8, "template.opt"
)
CHUNK = naming.ChunkNames(274495, 11001, "cdr11001-274495.raw", "/raw/cdr11001-274495.raw")


@pytest.mark.parametrize(("name", "item"), COMPASS["codes"].items(), ids=lambda value: str(value)[:30])
def test_pilot_codes_cost_the_same_on_both_sides(name, item):
    rule = tables.codes().codes["pilotErrorCode"].get(item["number"])
    assert rule is not None, f"{name} {item['number']} is not in prodsys_core/data/codes.yaml"
    assert rule.charge == item["charge"]


def place_of(lfn):
    for place in COMPASS["outputs"]["places"]:
        if re.search(place["match"], lfn):
            return place["directory"].format(prodSlt="3")
    raise AssertionError(f"the pilot has no place for {lfn}")


def test_pilot_puts_chunk_outputs_where_prodsys_looks_for_them():
    for product, lfn in SAMPLES.outputs(CHUNK, 2).items():
        expected = SAMPLES.file_path(product, lfn)
        assert expected == f"{SAMPLES.base}/{place_of(lfn)}/{lfn}"


@pytest.mark.parametrize("piece", [0, 7])
def test_pilot_puts_merged_files_where_prodsys_looks_for_them(piece):
    for product in tables.products().products:
        lfns = SAMPLES.outputs(naming.PieceNames(product, 274495, piece), 2)
        path = SAMPLES.file_path(product, lfns[product], merged=True)
        assert path == f"{SAMPLES.base}/{place_of(lfns[product])}/{lfns[product]}"
        log = SAMPLES.file_path("log", lfns["log"])
        assert log == f"{SAMPLES.base}/{place_of(lfns['log'])}/{lfns['log']}"


def test_pilot_knows_the_environment_of_the_base():
    assert COMPASS["outputs"]["base"] == ["COMPASS_SW_PREFIX", "COMPASS_SW_PATH", "PRODSOFT"]


def test_pilot_knows_every_transformation_of_the_demo():
    wanted = {names.transformation for names in tables.products().products.values()} | {"mass production"}
    assert wanted <= set(COMPASS["kinds"])


def test_pilot_reads_our_job_parameters():
    from pilot.experiments.jobtext import parse_job_text

    lfns = SAMPLES.outputs(CHUNK, 1)
    text = SAMPLES.parameters(CHUNK, lfns, "python3 -m x --raw {raw}", "w.1", 300)
    parsed = parse_job_text(text)
    assert (parsed.work, parsed.n_events, parsed.inputs) == ("w.1", 300, (CHUNK.raw,))
    assert parsed.argv == ("python3", "-m", "x", "--raw", CHUNK.raw)


def test_nothing_of_prodsys_imports_the_pilot_or_the_simulators():
    for path in Path(resources.files("prodsys_core")).rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (pilot|simulators)\b", path.read_text("utf-8"), re.M), path


def test_a_sites_command_of_two_commands_is_two_steps_for_the_pilot():
    from pilot.experiments.jobtext import parse_job_text
    from pilot.experiments.words import parse_experiment, steps_of

    lfns = SAMPLES.outputs(CHUNK, 1)
    text = SAMPLES.parameters(CHUNK, lfns, "prepare {raw} && reco {template}", "w.1", 300)
    words = resources.files("pilot").joinpath("experiments", "compass.yaml").read_text("utf-8")
    job = parse_job_text(text)
    steps = steps_of(parse_experiment(words).kinds["mass production"], job.argv, job.environment)
    assert [step.argv for step in steps] == [("prepare", CHUNK.raw), ("reco", "template.opt")]
