"""`manifest.json` as values (docs/architecture/files.md, section 2). Pure: text in, values out."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

SCHEMA = 1


class BadManifest(Exception):
    """The manifest cannot be used; the text names the field."""


class Pattern(NamedTuple):
    """A text searched in one stream."""

    name: str
    where: str
    text: str


class Kind(NamedTuple):
    """What to look for in the output of one kind of work. `marker` has the name ""."""

    name: str
    needs_caldb: bool
    marker: Optional[Pattern]
    patterns: Tuple[Pattern, ...]
    events_read: Optional[str]
    events_written: Optional[str]


class Place(NamedTuple):
    """A file that the payload (or the agent, for the log) writes under `lfn`, and where it goes."""

    lfn: str
    target: str


class InputFile(NamedTuple):
    """A file that the payload reads, by the path that the job names. `size`, `adler32`: as the job says, None: not."""

    path: str
    size: Optional[int] = None
    adler32: Optional[str] = None


class Inputs(NamedTuple):
    """How inputs are made available: "in place", "link", "copy", or "command" with words of which {source}, {target}
    are the paths."""

    method: str = "in place"
    command: Tuple[str, ...] = ()


class PayloadStep(NamedTuple):
    """One of several commands that a payload runs, in the same work directory. `after_failure`: runs in any case."""

    name: str
    argv: Tuple[str, ...]
    marker: Optional[Pattern] = None
    after_failure: bool = False


class Job(NamedTuple):
    """One payload of the node's list. `predicted_s` in seconds. `setup`: a script that makes its environment.

    `steps`: what runs instead of `argv`, if there are any. `run`: whose calibrations it asks for, None if not known.
    """

    panda_id: int
    attempt_nr: int
    kind: Kind
    predicted_s: float
    argv: Tuple[str, ...]
    environment: Mapping[str, str]
    outputs: Tuple[Place, ...]
    log: Optional[Place]
    inputs: Tuple[InputFile, ...] = ()
    setup: Optional[str] = None
    steps: Tuple[PayloadStep, ...] = ()
    run: Optional[int] = None


class Malformed(NamedTuple):
    """An item of a node's list that cannot be run; its neighbours are not touched."""

    panda_id: int
    attempt_nr: int
    reason: str


class Limits(NamedTuple):
    """Limits of the node, seconds unless the name says otherwise. Defaults and reasons:"""

    margin_s: float = 300.0  # kept free before the end of the walltime, for placing and writing down
    poll_s: float = 120.0  # `closed` and commands are looked for this often
    poll_apart_s: float = 1.0  # two looks at the ends of payloads are at least so far apart
    kill_s: float = 30.0  # payloads are gone this long after the agent decided so
    sample_s: float = (
        5.0  # memory and output are looked at this often: a payload grows a few 100 MiB in that time
    )
    heartbeat_s: float = 300.0  # a journal line at least this often
    visible_s: float = (
        30.0  # a write is seen by every client of the shared filesystem after at most this time
    )
    quick_failures: int = 3  # so many quick failures in a row: the node is bad
    quick_failure_s: float = 60.0  # a failure before this age is quick
    caldb_ready_s: float = 120.0  # from the start of the calibration server to its first answer
    probe_s: float = 60.0  # an avoided node passes its probe in this time
    setup_s: float = 300.0  # a set-up script ends in this time
    caldb_restarts: int = 2  # a calibration server that died is started again so often
    stdout_max_mib: float = 200.0  # a payload that prints more is ended: it would fill the node's memory
    rss_max_mib: Optional[float] = None  # memory of a payload's processes; None: no limit
    wall_max_s: Optional[float] = None  # a payload that runs for longer is ended; None: no limit of its own
    quiet_max_s: Optional[float] = None  # one that has printed nothing for so long is ended; None: no limit
    file_max_mib: Optional[float] = None  # one file that a payload writes; None: no limit
    inputs_at_once: int = 4  # inputs that are looked at or fetched at a time
    input_try_s: float = 1800.0  # one try to fetch an input is ended after this time
    input_tries: int = 3  # an input is fetched so often before its job fails
    inputs_max_mib: Optional[float] = None  # local copies of inputs; None: half of what is free at the start


class Caldb(NamedTuple):
    """The calibration snapshot and how payloads reach it."""

    backend: str
    snapshot: str
    sha256: str
    identity: str
    probe_sql: str
    probe_expect: str
    access: str
    server: Optional[str]
    copies: int = 1
    own_server: bool = False
    size: int = 0
    directories: Tuple[str, ...] = ()


class Manifest(NamedTuple):
    """What one agent or gate needs. `jobs` and `malformed` by node index, in the order to work them.

    `avoided`: nodes by their own names that are to pass a probe (with the command `probe`) first, and why.
    `environment` is the site's, `experiment` what the experiment adds to it.
    """

    bundle_id: str
    python: str
    agent_file: str
    walltime_s: float
    fencing: str
    limits: Limits
    local_dir: str
    slots: int
    bind: str
    end_foreign: str
    launch: Tuple[Tuple[str, ...], ...]
    environment: Mapping[str, str]
    caldb: Optional[Caldb]
    jobs: Mapping[int, Tuple[Job, ...]]
    malformed: Mapping[int, Tuple[Malformed, ...]]
    avoided: Mapping[str, str] = {}
    probe: Tuple[str, ...] = ()
    inputs: Inputs = Inputs()
    experiment: Mapping[str, str] = {}


def parse_manifest(text: str) -> Manifest:
    """The manifest, or BadManifest. Unknown keys are ignored: a later edge may say more."""
    try:
        raw = json.loads(text)
        if raw["schema"] != SCHEMA:
            raise BadManifest("schema: expected %d, found %r" % (SCHEMA, raw["schema"]))
        kinds = {name: _kind(name, item) for name, item in raw["kinds"].items()}
        launch = tuple(tuple(str(word) for word in words) for words in raw["launch"])
        lists = {int(node["index"]): _jobs(node["jobs"], kinds) for node in raw["nodes"]}
        if not set(lists) <= set(range(len(launch))):
            raise BadManifest("launch: %d entries for nodes %s" % (len(launch), sorted(lists)))
        return Manifest(
            bundle_id=str(raw["bundle_id"]),
            python=str(raw["python"]),
            agent_file=str(raw["agent_file"]),
            walltime_s=float(raw["walltime_s"]),
            fencing=_one_of("fencing", raw.get("fencing", "link"), ("link", "weak")),
            limits=_limits(raw.get("limits", {})),
            local_dir=str(raw["local_dir"]),
            slots=_positive("slots", raw["slots"]),
            end_foreign=_one_of("end_foreign", raw.get("end_foreign", "none"), ("none", "cgroup")),
            bind=_one_of("bind", raw.get("bind", "none"), ("none", "cores", "numa")),
            launch=launch,
            environment=_texts("environment", raw["environment"]),
            caldb=_caldb(raw["caldb"]) if raw.get("caldb") is not None else None,
            jobs={index: jobs for index, (jobs, _) in lists.items()},
            malformed={index: malformed for index, (_, malformed) in lists.items()},
            avoided=_texts("avoided", raw.get("avoided", {})),
            probe=tuple(str(word) for word in raw.get("probe", ())),
            inputs=_inputs(raw.get("inputs", {})),
            experiment=_texts("experiment", raw.get("experiment", {})),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadManifest("missing or wrong: %r" % (error,)) from error


def _limits(raw: Mapping[str, Any]) -> Limits:
    known: Dict[str, Any] = {}
    for name, default in Limits._field_defaults.items():
        value = raw.get(name, default)
        if isinstance(value, bool) or not (
            isinstance(value, (int, float)) or (value is None and default is None)
        ):
            raise BadManifest("limits.%s: expected a number, found %r" % (name, value))
        known[name] = value
    return Limits(**known)


def _kind(name: str, raw: Mapping[str, Any]) -> Kind:
    marker = raw.get("end_marker")
    return Kind(
        name,
        bool(raw["needs_caldb"]),
        _pattern({"name": "", **marker}) if marker is not None else None,
        tuple(_pattern(item) for item in raw.get("patterns", ())),
        raw.get("events_read"),
        raw.get("events_written"),
    )


def _pattern(raw: Mapping[str, Any]) -> Pattern:
    return Pattern(str(raw["name"]), _one_of("where", raw["where"], ("stdout", "stderr")), str(raw["text"]))


def _jobs(raw: Any, kinds: Mapping[str, Kind]) -> Tuple[Tuple[Job, ...], Tuple[Malformed, ...]]:
    jobs, malformed = [], []
    for item in raw:
        try:
            jobs.append(_job(item, kinds))
        except (KeyError, TypeError, ValueError, AttributeError, BadManifest) as error:
            malformed.append(Malformed(int(item["panda_id"]), int(item["attempt_nr"]), "job: %r" % (error,)))
    return tuple(jobs), tuple(malformed)


def _job(raw: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Job:
    argv = tuple(str(word) for word in raw["argv"])
    if not argv:
        raise BadManifest("job %r: argv is empty" % (raw["panda_id"],))
    return Job(
        int(raw["panda_id"]),
        int(raw["attempt_nr"]),
        kinds[raw["kind"]],
        float(raw["predicted_s"]),
        argv,
        _texts("environment of job %r" % (raw["panda_id"],), raw["environment"]),
        tuple(_place(item) for item in raw["outputs"]),
        _place(raw["log"]) if raw.get("log") is not None else None,
        tuple(_input(item) for item in raw.get("inputs", ())),
        _script(raw["setup"]) if raw.get("setup") is not None else None,
        tuple(_step(item) for item in raw.get("steps", ())),
        int(raw["run"]) if raw.get("run") is not None else None,
    )


def _step(raw: Mapping[str, Any]) -> PayloadStep:
    argv, marker = tuple(str(word) for word in raw["argv"]), raw.get("end_marker")
    if not argv:
        raise BadManifest("step %r: argv is empty" % (raw["name"],))
    return PayloadStep(
        str(raw["name"]),
        argv,
        _pattern({"name": "", **marker}) if marker is not None else None,
        bool(raw.get("after_failure", False)),
    )


def _script(path: Any) -> str:
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise BadManifest("setup %r: expected an absolute path" % (path,))
    return path


def _input(raw: Mapping[str, Any]) -> InputFile:
    path, size, adler32 = str(raw["path"]), raw.get("size"), raw.get("adler32")
    plain = path.startswith("/") and path.rpartition("/")[2] not in ("", ".", "..") and "\0" not in path
    if (
        not plain
        or not (size is None or type(size) is int)
        or not (adler32 is None or isinstance(adler32, str))
    ):
        raise BadManifest("input %r: expected an absolute path, a size and an adler32 or neither" % (path,))
    return InputFile(path, size, adler32)


def _inputs(raw: Mapping[str, Any]) -> Inputs:
    method = _one_of("inputs.method", raw.get("method", "in place"), ("in place", "link", "copy", "command"))
    command = tuple(str(word) for word in raw.get("command", ()))
    if method == "command" and not command:
        raise BadManifest("inputs.command: expected words")
    return Inputs(method, command)


def _place(raw: Mapping[str, Any]) -> Place:
    lfn, target = str(raw["lfn"]), str(raw["target"])
    if "/" in lfn or "\0" in lfn + target or lfn in ("", ".", "..") or not target.startswith("/"):
        raise BadManifest("output %r: a plain name and an absolute target are expected" % (lfn,))
    return Place(lfn, target)


def _caldb(raw: Mapping[str, Any]) -> Caldb:
    return Caldb(
        _one_of("caldb.backend", raw["backend"], ("mariadb", "sqlite")),
        str(raw["snapshot"]),
        str(raw["sha256"]),
        str(raw["identity"]),
        str(raw["probe"]["sql"]),
        str(raw["probe"]["expect"]),
        _one_of("caldb.access", raw.get("access", "socket"), ("socket", "tcp")),
        raw.get("server"),
        _positive("caldb.copies", raw.get("copies", 1)),
        bool(raw.get("own_server", False)),
        int(raw.get("size", 0)),
        tuple(str(name) for name in raw.get("directories", ())),
    )


def _one_of(field: str, value: Any, allowed: Tuple[str, ...]) -> str:
    if value not in allowed:
        raise BadManifest("%s: expected one of %s, found %r" % (field, ", ".join(allowed), value))
    return str(value)


def _positive(field: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise BadManifest("%s: expected a positive integer, found %r" % (field, value))
    return value


def _texts(field: str, raw: Any) -> Mapping[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(v, str) and "\0" not in k + v for k, v in raw.items()):
        raise BadManifest("%s: expected names and texts" % field)
    return raw
