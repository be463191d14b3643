"""Directed scenarios of payloads, inputs, set-up scripts and calibration servers that do not do what they should.

Each takes a seed and returns a healed world at its end. `PLAYS` names the codes of the verdicts that the jobs get, and
a reason for which some were given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, repeat

from pilot.multijob.events import JobGivenBack, JobJudged
from pilot.multijob.model import Limits
from pilot.multijob.node.files import Put, PutNew, Unlink
from pilot.multijob.node.manifest import Job
from pilot.multijob.operations import MakeDirectory
from pilot.ports import Job as WireJob
from simulators.world.floor import KeeperPlay, Play, ScriptPlay
from simulators.world.staging import heal, let_start, make_job, make_limits, make_world, submitted
from simulators.world.world import World

GOOD = Play(100.0)
SNAPSHOT = {
    "backend": "sqlite",
    "snapshot": "/shared/caldb.sqlite",
    "sha256": "0" * 64,
    "identity": "calib-1",
    "probe": {"sql": "SELECT 1", "expect": "1"},
    "access": "socket",
    "server": None,
}


def _played(seed: int, *plays: Play, limits: Limits | None = None, jobs: int = 4) -> World:
    """Payloads play these one after the other, the later ones are good."""
    world = make_world(seed, run_s=100.0, jobs=jobs, limits=limits)
    each: Iterator[Play] = chain(plays, repeat(GOOD))
    world.floor.play = lambda job: next(each)
    submitted(world)
    let_start(world)
    return heal(world)


def _node_limits(**changes: float) -> Limits:
    limits = make_limits()
    return replace(limits, site=replace(limits.site, node_limits={**limits.site.node_limits, **changes}))


def exit_codes(seed: int) -> World:
    """Payloads that end with a code of their own, by a signal, or cannot be started at all."""
    return _played(
        seed,
        Play(100.0, exit_code=3),
        Play(100.0, signal=11),
        Play(100.0, signal=9),
        Play(100.0, refused="cannot be started: no such file"),
    )


def exit_0_is_not_success(seed: int) -> World:
    """Payloads that end with 0: without end marker, with an error text, with too few events, without an output."""
    missing = frozenset(f"mDST-1-{number}-3-8.a1.root" for number in range(1, 5))
    return _played(
        seed,
        Play(100.0, marker=False),
        Play(100.0, patterns=("fatal",)),
        Play(100.0, events=7),
        Play(100.0, missing=missing),
    )


def output_is_there(seed: int) -> World:
    """A file with the name of an output lies in its place before the payload ends."""
    world = make_world(seed, run_s=100.0)
    for directory in ("/out/p", "/out/p/s", "/out/p/s/mDST.chunks"):
        world.shared.perform("somebody", MakeDirectory(directory))
    world.shared.perform("somebody", PutNew("/out/p/s/mDST.chunks/mDST-1-1-3-8.a1.root", "somebody's"))
    submitted(world)
    let_start(world)
    return heal(world)


def over_limits(seed: int) -> World:
    """Payloads that take too much memory or print too much; one of them does not hear SIGTERM."""
    return _played(
        seed,
        Play(600.0, rss_mib=5000.0, deaf=True),
        Play(600.0, stdout_mib=300.0),
        limits=_node_limits(rss_max_mib=4000),
    )


def over_walltime(seed: int) -> World:
    """A payload that hears no SIGTERM runs into the deadline."""
    return _played(seed, Play(100_000.0, deaf=True))


def bad_node(seed: int) -> World:
    """Every payload fails within seconds on one node; what it has left goes back and runs elsewhere later."""
    world = make_world(seed, run_s=100.0, jobs=12, limits=make_limits(jobs_per_slot=3))
    submitted(world)
    let_start(world)
    world.run_until(lambda: bool(world.machine.agents()), 600.0)
    bad = {job.panda_id for job in _list_of(world)}
    world.floor.play = (
        lambda job: Play(5.0, exit_code=1) if job.panda_id in bad and world.now_s < 120 else GOOD
    )
    return heal(world)


def _list_of(world: World) -> tuple[Job, ...]:
    agent = world.machine.agents()[0]
    world.run_until(lambda: agent.agent is not None, 60.0)
    assert agent.agent is not None
    return (*agent.agent.state.pending, *(item.job for item in agent.agent.state.running))


def _with_caldb(seed: int, *keepers: KeeperPlay, ready_s: float = 120.0) -> World:
    """Payloads need a calibration server; the keepers play these, the later ones are good."""
    limits = _node_limits(caldb_ready_s=ready_s)
    kinds = {name: replace(kind, needs_caldb=True) for name, kind in limits.experiment.kinds.items()}
    limits = replace(
        limits,
        site=replace(limits.site, caldb=SNAPSHOT),
        experiment=replace(limits.experiment, kinds=kinds),
    )
    world = make_world(seed, run_s=100.0, limits=limits)
    each = chain(keepers, repeat(KeeperPlay()))
    world.floor.keeper = lambda client: next(each)
    submitted(world)
    let_start(world)
    return heal(world)


def caldb_late(seed: int) -> World:
    """The calibration servers need between 5 and 400 s; nothing starts before."""
    return _with_caldb(seed, KeeperPlay(5.0 + 50.0 * seed), KeeperPlay(400.0), ready_s=450.0)


def caldb_fails(seed: int) -> World:
    """The calibration server of one node does not come up: its jobs go back."""
    return _with_caldb(seed, KeeperPlay(20.0, fails="no space"))


def caldb_says_nothing(seed: int) -> World:
    """A keeper says nothing at all: it is given up, the node's jobs go back."""
    return _with_caldb(seed, KeeperPlay(None))


def caldb_dies(seed: int) -> World:
    """A calibration server dies for good while payloads use it."""
    return _with_caldb(seed, KeeperPlay(5.0, ends_after_s=50.0))


def caldb_wrong(seed: int) -> World:
    """A snapshot turns out to be damaged when the first payloads that read it have ended."""
    return _with_caldb(seed, KeeperPlay(5.0, proved_s=150.0, wrong=True))


def _with_setup(seed: int, *scripts: ScriptPlay) -> World:
    """Payloads need a set-up script; these are played one after the other, the later ones are good."""
    limits = _node_limits(setup_s=60.0)
    limits = replace(limits, site=replace(limits.site, setup="/soft/{PRODSOFT}/setup.sh"))
    world = make_world(seed, run_s=100.0, limits=limits)
    each = chain(scripts, repeat(ScriptPlay()))
    world.floor.script = lambda client: next(each)
    submitted(world)
    let_start(world)
    return heal(world)


def setup_fails(seed: int) -> World:
    """The software is not mounted on one node: its jobs go back."""
    return _with_setup(seed, ScriptPlay(1.0, "exit code 1"))


def setup_hangs(seed: int) -> World:
    """A set-up script never ends: it is given up, the node's jobs go back."""
    return _with_setup(seed, ScriptPlay(None))


def input_is_gone(seed: int) -> World:
    """An input that was there when its bundle was made is not when its job should start; another one was shortened."""

    def with_input(number: int) -> WireJob:
        job = make_job(number)
        words = f"PRODSYS_INPUTS=/raw/{number} PRODSYS_INPUT_SUMS=8"
        return replace(job, job_pars=f"{words} {job.job_pars}")

    world = make_world(seed, run_s=100.0, make=with_input)
    world.shared.root("/raw")
    for number in range(1, 5):
        world.shared.perform("somebody", PutNew(f"/raw/{number}", "raw data"))
    submitted(world)
    world.shared.perform("somebody", Unlink("/raw/2"))
    world.shared.perform("somebody", Put("/raw/3", "raw", "/raw/3.tmp"))
    let_start(world)
    return heal(world)


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come out: names of the codes of failed jobs, and a text in a reason for which a job was given back."""

    codes: frozenset[str] = frozenset()
    given_back: str = ""


PLAYS: Mapping[str, tuple[Callable[[int], World], Expected]] = {
    scenario.__name__: (scenario, expected)
    for scenario, expected in (
        (exit_codes, Expected(frozenset({"payload-failed", "sigsegv", "killed-payload"}))),
        (
            exit_0_is_not_success,
            Expected(frozenset({"no-end-marker", "fatal", "events-differ", "output-missing"})),
        ),
        (over_limits, Expected(frozenset({"out-of-memory", "stdout-too-large"}))),
        (over_walltime, Expected(frozenset({"time-limit"}))),
        (bad_node, Expected(frozenset({"payload-failed"}), "quick failures")),
        (caldb_late, Expected()),
        (caldb_fails, Expected(frozenset(), "no space")),
        (caldb_says_nothing, Expected(frozenset(), "no answer in 120 s")),
        (caldb_dies, Expected(frozenset({"caldb"}))),
        (caldb_wrong, Expected(frozenset({"caldb"}))),
        (setup_fails, Expected(frozenset(), "setup.sh: exit code 1")),
        (setup_hangs, Expected(frozenset(), "did not end in 60 s")),
        (input_is_gone, Expected(frozenset({"input-missing", "stage-in"}))),
    )
}


def codes_of(world: World) -> frozenset[str]:
    """Names of the codes of all verdicts but success."""
    names = {code.number: name for name, code in world.limits.experiment.codes.items()}
    judged = [e for d in world.daemons for _, e in d.events if isinstance(e, JobJudged)]
    return frozenset(names[event.verdict.code] for event in judged if event.verdict.code)


def reasons_of(world: World) -> list[str]:
    """Why jobs were given back."""
    return [e.reason for d in world.daemons for _, e in d.events if isinstance(e, JobGivenBack)]
