"""What an experiment is, as plain values: end markers, error texts, exit codes, where outputs go.

The YAML files beside this module hold the words; this module turns their text into values and refuses what does
not fit, naming the key. Source of COMPASS' words: docs/facts/compass.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

_STEP_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


class BadExperiment(Exception):
    """The experiment file is not usable; the text names the key."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text that is searched in one stream of the payload; its code decides if the job failed."""

    name: str
    where: str
    text: str
    code: int
    charge: str


@dataclass(frozen=True, slots=True)
class StepRule:
    """One command of a kind of work. `argv` None: the job's own. `after_failure`: it runs although another failed."""

    name: str
    argv: tuple[str, ...] | None
    marker_where: str | None = None
    marker_text: str | None = None
    after_failure: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of work, by PanDA's `transformation`. `needs_setup`: it runs after the site's set-up script.

    `steps`: its commands, the job's own among them; none: that one only.
    """

    name: str
    needs_caldb: bool
    marker_where: str | None
    marker_text: str | None
    events_read: str | None
    events_written: str | None
    patterns: tuple[str, ...]
    counts_events: bool
    needs_setup: bool = False
    steps: tuple[StepRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Code:
    """A PanDA pilot error code with its class: who pays for the attempt (`own`, `site`, `infrastructure`)."""

    number: int
    name: str
    charge: str
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """Outputs whose LFN matches go to this directory below the job's base."""

    match: re.Pattern[str]
    directory: str


@dataclass(frozen=True, slots=True)
class RunName:
    """Where a job says which run it works on: the first group of `match` in this variable."""

    variable: str
    match: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Experiment:
    """All words of one experiment. `environment`: of all its payloads."""

    name: str
    kinds: Mapping[str, Kind]
    patterns: Mapping[str, Pattern]
    exit_codes: Mapping[int, Code]
    codes: Mapping[str, Code]
    base: tuple[str, ...]
    places: tuple[Place, ...]
    run: RunName | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """Where one declared output goes. `target` is absolute and below the site's output root."""

    lfn: str
    target: str


def parse_experiment(text: str) -> Experiment:
    """The values of one experiment file; raises BadExperiment."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadExperiment(f"not YAML: {error}") from error
    try:
        codes = {name: _code(name, item) for name, item in raw["codes"].items()}
        patterns = {name: _pattern(name, item, codes) for name, item in raw["patterns"].items()}
        kinds = {name: _kind(name, item, patterns) for name, item in raw["kinds"].items()}
        exits = {int(number): codes[name] for number, name in raw.get("exit_codes", {}).items()}
        places = tuple(
            Place(re.compile(item["match"]), item["directory"]) for item in raw["outputs"]["places"]
        )
        run = RunName(raw["run"]["variable"], re.compile(raw["run"]["match"])) if "run" in raw else None
        if run is not None and run.match.groups != 1:
            raise ValueError(f"run.match: expected one group, found {run.match.groups}")
        base = tuple(raw["outputs"]["base"])
        environment = raw.get("environment", {})
        if not all(isinstance(text, str) for pair in environment.items() for text in pair):
            raise ValueError(f"environment: expected names and texts, found {environment!r}")
        return Experiment(raw["name"], kinds, patterns, exits, codes, base, places, run, environment)
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise BadExperiment(f"missing or wrong: {error!r}") from error


def run_of(experiment: Experiment, environment: Mapping[str, str]) -> int | None:
    """The run that a job works on, None if it does not say."""
    if experiment.run is None:
        return None
    found = experiment.run.match.search(environment.get(experiment.run.variable, ""))
    return int(found.group(1)) if found is not None else None


def _code(name: str, item: Mapping[str, Any]) -> Code:
    if item["charge"] not in ("own", "site", "infrastructure"):
        raise ValueError(f"codes.{name}.charge: {item['charge']!r}")
    return Code(int(item["number"]), name, item["charge"], item["text"])


def _pattern(name: str, item: Mapping[str, Any], codes: Mapping[str, Code]) -> Pattern:
    code = codes[item["code"]]
    return Pattern(name, item["where"], item["text"], code.number, code.charge)


def _kind(name: str, item: Mapping[str, Any], patterns: Mapping[str, Pattern]) -> Kind:
    marker = item.get("end_marker") or {}
    wanted = tuple(item.get("patterns", ()))
    for pattern in wanted:
        patterns[pattern]
    return Kind(
        name,
        bool(item["needs_caldb"]),
        marker.get("where"),
        marker.get("text"),
        item.get("events_read"),
        item.get("events_written"),
        wanted,
        bool(item.get("counts_events", False)),
        bool(item.get("needs_setup", False)),
        _steps(name, item.get("steps", ())),
    )


def _steps(kind: str, items: Sequence[Mapping[str, Any]]) -> tuple[StepRule, ...]:
    rules = []
    for item in items:
        marker = item.get("end_marker") or {}
        argv = None if item["argv"] == "job" else tuple(item["argv"])
        if argv is not None and not (argv and isinstance(item["argv"], list) and all(map(_is_text, argv))):
            raise ValueError(f"kinds.{kind}.steps.argv: expected words or 'job', found {item['argv']!r}")
        after = bool(item.get("after_failure", False))
        if after and argv is None:
            raise ValueError(f"kinds.{kind}.steps: the job's own command never runs after a failure")
        if not _STEP_NAME.fullmatch(str(item["name"])):
            raise ValueError(
                f"kinds.{kind}.steps.name: found {item['name']!r}, expected {_STEP_NAME.pattern}"
            )
        rules.append(StepRule(str(item["name"]), argv, marker.get("where"), marker.get("text"), after))
    if rules and sum(rule.argv is None for rule in rules) != 1:
        raise ValueError(f"kinds.{kind}.steps: expected exactly one with argv 'job'")
    if len({rule.name for rule in rules}) != len(rules):
        raise ValueError(f"kinds.{kind}.steps: expected a name of its own for each")
    return tuple(rules)


def _is_text(word: object) -> bool:
    return isinstance(word, str)


class BadSteps(Exception):
    """The commands of a job cannot be told; the text says why."""


@dataclass(frozen=True, slots=True)
class StepCommand:
    """One command of a job, as its node is to run it."""

    name: str
    argv: tuple[str, ...]
    marker_where: str | None
    marker_text: str | None
    after_failure: bool


def steps_of(kind: Kind, argv: Sequence[str], environment: Mapping[str, str]) -> tuple[StepCommand, ...]:
    """The commands of a job, none where it is one: those of its kind, and its own, which `&&` may divide.

    The kind's end marker is that of the job's own (last) command. Raises BadSteps.
    """
    own = _divided(argv)
    if not kind.steps and len(own) == 1:
        return ()
    steps: list[StepCommand] = []
    for rule in kind.steps or (StepRule("job", None),):
        if rule.argv is not None:
            words = tuple(_filled(word, environment) for word in rule.argv)
            steps.append(
                StepCommand(rule.name, words, rule.marker_where, rule.marker_text, rule.after_failure)
            )
            continue
        for number, words in enumerate(own, 1):
            last = number == len(own)
            name = rule.name if len(own) == 1 else f"{rule.name}.{number}"
            where, text = (kind.marker_where, kind.marker_text) if last else (None, None)
            steps.append(StepCommand(name, words, where, text, False))
    return tuple(steps)


def _divided(argv: Sequence[str]) -> list[tuple[str, ...]]:
    commands: list[tuple[str, ...]] = []
    words: list[str] = []
    for word in [*argv, "&&"]:
        if word != "&&":
            words.append(word)
            continue
        if not words:
            raise BadSteps("there is no command before or after '&&'")
        commands.append(tuple(words))
        words = []
    return commands


def _filled(word: str, environment: Mapping[str, str]) -> str:
    try:
        return word.format_map(environment)
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise BadSteps(f"a step needs {error} in the job parameters") from error


class BadSetup(Exception):
    """A job does not say which set-up script is its own; the text says why."""


def setup_of(
    experiment: Experiment, template: str | None, kind: str, environment: Mapping[str, str]
) -> str | None:
    """The set-up script of a job of this kind, None if it needs none or the site has none. Raises BadSetup."""
    if template is None or not experiment.kinds[kind].needs_setup:
        return None
    return setup_script(template, environment)


def setup_script(template: str, environment: Mapping[str, str]) -> str:
    """The set-up script of a job: `template` with its variables. Raises BadSetup; it never leaves the fixed part."""
    root = template.partition("{")[0].rpartition("/")[0] or "/"
    try:
        path = PurePosixPath(template.format_map(environment))
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise BadSetup(f"the set-up script needs {error} in the job parameters") from error
    if ".." in path.parts or not path.is_relative_to(root) or "\0" in str(path):
        raise BadSetup(f"the set-up script would be {str(path)[:120]!a}, outside {root}")
    return str(path)


def place_outputs(
    experiment: Experiment, output_root: str, environment: Mapping[str, str], lfns: tuple[str, ...]
) -> tuple[OutputPlace, ...] | str:
    """Targets of the declared LFNs, or one sentence that says why they cannot be placed.

    Nothing leaves `output_root`: names with a slash, `..` or control characters are refused.
    """
    base = "".join(environment.get(name, "") for name in experiment.base)
    placed = []
    for lfn in lfns:
        if not re.fullmatch(r"[A-Za-z0-9._+@=-]{1,200}", lfn) or lfn.startswith("."):
            return f"output name {lfn[:80]!a} is not a plain file name"
        place = next((place for place in experiment.places if place.match.search(lfn)), None)
        if place is None:
            return f"no place for output {lfn!a} in experiment {experiment.name}"
        try:
            directory = place.directory.format_map(environment)
        except (KeyError, ValueError, IndexError) as error:
            return f"output {lfn!a}: directory needs {error} in the job parameters"
        path = PurePosixPath(base) / directory / lfn
        if not path.is_absolute() or ".." in path.parts or not path.is_relative_to(output_root):
            return f"output {lfn!a} would go to {str(path)[:120]!a}, outside {output_root}"
        placed.append(OutputPlace(lfn, str(path)))
    return tuple(placed)
