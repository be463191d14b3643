"""What a manifest tells a node of inputs and set-up scripts, by site, queue, experiment and job."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from rig import EXPERIMENT, WORDS, Rig, Site, make_job, make_limits

from pilot.experiments.words import BadExperiment, BadSetup, parse_experiment, setup_script
from pilot.multijob import actions as a
from pilot.multijob.model import Limits
from pilot.ports import InputSeen, InputsSeen, Job, JobStatus

TEMPLATE = "/cvmfs/compass.cern.ch/{COMPASS_SW_PATH}{PRODSOFT}/coral/setup.sh"


class Told(Site):
    """Keeps manifests; every input is there. `said`: lines of the first bundle's node."""

    def __init__(self, *jobs: Job) -> None:
        super().__init__(jobs)
        self.manifests: list[dict[str, Any]] = []

    def respond(self, action: Any) -> Any:
        if isinstance(action, a.LookAtInputs):
            return InputsSeen(dict.fromkeys(action.paths, InputSeen((5,))))
        if isinstance(action, a.PrepareBundle):
            self.manifests.append(json.loads(action.render().manifest))
        return super().respond(action)


def with_words(number: int, words: str, **changes: Any) -> Job:
    job = make_job(number)
    return replace(job, job_pars=f"{words} {job.job_pars}", **changes)


def limits_with(queue_method: str | None = None, environment: Any = None, **site: Any) -> Limits:
    limits = make_limits()
    queue = replace(limits.queues["long"], fill_wait_s=0.0, inputs_method=queue_method)
    experiment = replace(EXPERIMENT, environment=environment or {})
    return replace(limits, queues={"long": queue}, site=replace(limits.site, **site), experiment=experiment)


def told(limits: Limits, *jobs: Job) -> tuple[dict[str, Any], Told, Rig]:
    rig, site = Rig(limits), Told(*jobs)
    rig.run(site.respond, 30)
    return site.manifests[0], site, rig


def jobs_of(manifest: dict[str, Any]) -> dict[int, Any]:
    return {job["panda_id"]: job for node in manifest["nodes"] for job in node["jobs"]}


def test_inputs_go_with_what_the_job_says_of_them_and_by_the_sites_method() -> None:
    command = ("xrdcp", "{source}", "{target}")
    job = with_words(1, "PRODSYS_INPUTS=/raw/a:/raw/b PRODSYS_INPUT_SUMS=5:0A1B2C3D,")
    manifest, _, _ = told(limits_with(inputs_method="command", inputs_command=command), job)
    assert manifest["inputs"] == {"method": "command", "command": list(command)}
    assert jobs_of(manifest)[1]["inputs"] == [
        {"path": "/raw/a", "size": 5, "adler32": "0a1b2c3d"},
        {"path": "/raw/b", "size": None, "adler32": None},
    ]


def test_a_node_is_told_the_run_of_each_job_that_names_one() -> None:
    manifest, _, _ = told(limits_with(), with_words(1, "TMPRAWFILE=cdr11001-274500.raw"), make_job(2))
    assert {number: job["run"] for number, job in jobs_of(manifest).items()} == {1: 274500, 2: None}


def test_a_queue_may_have_a_method_of_its_own() -> None:
    manifest, _, _ = told(limits_with("link", inputs_method="copy"), make_job(1))
    assert manifest["inputs"]["method"] == "link"


def test_each_task_has_the_set_up_script_of_its_own_software_and_only_kinds_that_need_one() -> None:
    jobs = (
        make_job(1),
        replace(make_job(2), job_pars=make_job(2).job_pars.replace("PRODSOFT=s ", "PRODSOFT=soft2 ")),
        make_job(3, transformation="merging hist"),
        make_job(4, transformation="merging mdst"),
    )
    manifest, _, _ = told(limits_with(setup=TEMPLATE, environment={"CORAL": "x"}), *jobs)
    first = "/cvmfs/compass.cern.ch/p/s/coral/setup.sh"
    found = {number: job["setup"] for number, job in jobs_of(manifest).items()}
    assert found == {1: first, 2: first.replace("/s/", "/soft2/"), 3: None, 4: first}
    assert manifest["experiment"] == {"CORAL": "x"}
    manifest, _, _ = told(limits_with(), *jobs)
    assert {job["setup"] for job in jobs_of(manifest).values()} == {None}


@pytest.mark.parametrize("path", ["../../../etc/", "/etc/../", "x/../../"])
def test_a_script_outside_its_fixed_part_is_refused(path: str) -> None:
    with pytest.raises(BadSetup):
        setup_script(TEMPLATE, {"COMPASS_SW_PATH": path, "PRODSOFT": "s"})


def test_what_follows_the_fixed_part_is_a_name_and_nothing_else() -> None:
    names = {"COMPASS_SW_PATH": "a $(x);'b'/", "PRODSOFT": "{PRODSOFT}"}
    assert setup_script(TEMPLATE, names) == "/cvmfs/compass.cern.ch/a $(x);'b'/{PRODSOFT}/coral/setup.sh"
    assert setup_script("/soft/setup.sh", {}) == "/soft/setup.sh"


def test_a_job_that_does_not_say_which_script_is_refused_and_its_neighbour_runs() -> None:
    bad = replace(make_job(1), job_pars="COMPASS_SW_PREFIX=/out/ PRODSOFT=s prodSlt=3 reco")
    manifest, site, _ = told(limits_with(setup=TEMPLATE), bad, make_job(2))
    assert set(jobs_of(manifest)) == {2}
    [report] = [u for u in site.reports if u.panda_id == 1 and u.status is JobStatus.FAILED]
    assert report.pilot_error_code == 1110
    assert "COMPASS_SW_PATH" in report.pilot_error_diag


def test_a_failed_script_raises_an_alarm_that_names_it() -> None:
    _, site, rig = told(limits_with(setup=TEMPLATE), make_job(1))
    [batch_id], [bundle_id] = site.batch, rig.state.bundles
    site.start(batch_id)
    site.lines[bundle_id] = [
        ("setup_failed", {"script": "/soft/setup.sh", "reason": "exit code 1", "log": ""})
    ]
    rig.run(site.respond, 20)
    reason = rig.memory.alarms[f"setup-{bundle_id}"].reason
    assert "/soft/setup.sh: exit code 1" in reason


def test_an_environment_of_the_experiment_is_names_and_texts() -> None:
    words = WORDS.replace("environment: {}", "environment: {CORAL: /soft}")
    assert parse_experiment(words).environment == {"CORAL": "/soft"}
    with pytest.raises(BadExperiment, match="environment"):
        parse_experiment(WORDS.replace("environment: {}", "environment: {CORAL: 5}"))


STEPS = """    steps:
      - {name: unpack, argv: [gunzip, "{TMPRAWFILE}.gz"]}
      - {name: reconstruct, argv: job}
      - {name: check, argv: [check, "{COMPASS_SW_PREFIX}", "{{}}"], end_marker: {where: stderr, text: Good}}
      - {name: clean, argv: [clean], after_failure: true}
"""


def with_steps(steps: str = STEPS) -> str:
    return WORDS.replace("    counts_events: true\n", f"    counts_events: true\n{steps}")


def steps_told(text: str, words: str = WORDS) -> list[Any]:
    limits = replace(limits_with(), experiment=parse_experiment(words))
    manifest, _, _ = told(limits, replace(make_job(1), job_pars=text))
    return list(jobs_of(manifest)[1]["steps"])


HEAD = "TMPRAWFILE=r COMPASS_SW_PREFIX=/out/ COMPASS_SW_PATH=p/ PRODSOFT=s prodSlt=3 "
MARKER = {"where": "stdout", "text": "End of Job"}


def test_steps_of_a_kind_surround_the_jobs_own_command() -> None:
    found = steps_told(HEAD + "reco --raw x", with_steps())
    assert [(step["name"], step["argv"]) for step in found] == [
        ("unpack", ["gunzip", "r.gz"]),
        ("reconstruct", ["reco", "--raw", "x"]),
        ("check", ["check", "/out/", "{}"]),
        ("clean", ["clean"]),
    ]
    assert [step["end_marker"] for step in found] == [None, MARKER, {"where": "stderr", "text": "Good"}, None]
    assert [step["after_failure"] for step in found] == [False, False, False, True]


def test_a_job_divides_its_own_command_by_a_word_of_its_own_and_no_other() -> None:
    assert steps_told(HEAD + "reco 'a && b' a&&b ; c") == []
    found = steps_told(HEAD + "one x && two '&' && three")
    assert [(step["name"], step["argv"], step["end_marker"]) for step in found] == [
        ("job.1", ["one", "x"], None),
        ("job.2", ["two", "&"], None),
        ("job.3", ["three"], MARKER),
    ]
    names = [step["name"] for step in steps_told(HEAD + "one && two", with_steps())]
    assert names == ["unpack", "reconstruct.1", "reconstruct.2", "check", "clean"]


@pytest.mark.parametrize("text", ["&& a", "a &&", "a && && b", "&&"])
def test_a_job_without_a_command_between_is_refused(text: str) -> None:
    bad = replace(make_job(1), job_pars=HEAD + text)
    manifest, site, _ = told(limits_with(), bad, make_job(2))
    assert set(jobs_of(manifest)) == {2}
    [report] = [u for u in site.reports if u.panda_id == 1 and u.status is JobStatus.FAILED]
    assert report.pilot_error_code == 1110


def test_a_job_that_lacks_what_a_step_needs_is_refused() -> None:
    limits = replace(limits_with(), experiment=parse_experiment(with_steps()))
    good = with_words(2, "TMPRAWFILE=r")
    manifest, site, _ = told(limits, make_job(1), good)
    assert set(jobs_of(manifest)) == {2}
    [report] = [u for u in site.reports if u.panda_id == 1 and u.status is JobStatus.FAILED]
    assert "a step needs 'TMPRAWFILE'" in report.pilot_error_diag


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("    steps: [{name: a, argv: [x]}]\n", "exactly one with argv 'job'"),
        ("    steps: [{name: a, argv: job}, {name: b, argv: job}]\n", "exactly one with argv 'job'"),
        ("    steps: [{name: a, argv: job}, {name: a, argv: [x]}]\n", "a name of its own"),
        ("    steps: [{name: a, argv: job}, {name: b, argv: x}]\n", "expected words or 'job'"),
        ("    steps: [{name: a, argv: job}, {name: b, argv: []}]\n", "expected words or 'job'"),
        ("    steps: [{name: a, argv: job}, {name: b, argv: [5]}]\n", "expected words or 'job'"),
        ("    steps: [{name: a, argv: job, after_failure: true}]\n", "never runs after a failure"),
        ("    steps: [{name: A.1, argv: job}]\n", "steps.name"),
    ],
)
def test_steps_that_cannot_be_meant_are_refused_with_their_kind(steps: str, words: str) -> None:
    with pytest.raises(BadExperiment, match=words) as caught:
        parse_experiment(with_steps(steps))
    assert "test production" in str(caught.value)
