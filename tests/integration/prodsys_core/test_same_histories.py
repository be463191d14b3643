"""The same histories through prodsys' services and through the rows in memory of the virtual world: the same steps,
attempts, transitions and charges after every tick. What the world's checkers prove of the one is so of the other.

Each side has a simulated server of its own, over the wire's texts. Not compared: what the world does not have (staging,
placing of runs, work that is done here).
"""

import json
import random
from datetime import timedelta

import pytest

from prodsys_core.config import Panda, Retry
from prodsys_core.lifecycle import Role, StepKind, StepStatus
from prodsys_core.models import PandaAttempt, Step, Transition
from prodsys_core.panda import HttpJobSink
from prodsys_core.services.moves import Mover
from prodsys_core.services.sending import steps_stage
from prodsys_core.services.tasks import as_manager, resend_candidates, steps_resend
from prodsys_core.tick import tick
from simulators.panda.dispatch import HttpReply, HttpRequest
from simulators.panda.model import PandaModel
from simulators.world.panda import NoAnswer, ProdsysSession, Wire
from simulators.world.production import MAX_ATTEMPTS, MERGE_LIMITS, RULES, Production

SEEDS, LENGTH = 25, 60
RUNS = {274495: [300, 250, 900, 40], 274496: [120], 274497: [700, 700, 30]}
PANDA = Panda(url="http://127.0.0.1", submit_chunk=3, commit_batches=1, status_every_s=0.0, active_max=1000)
LIVE = ("defined", "activated", "running")
ENDS = [
    ("finished", {}),
    ("finished", {}),
    ("finished", {}),
    ("finished", {"nEvents": 1}),
    ("finished", {"jobMetrics": ""}),
    ("failed", {"pilotErrorCode": 1379}),
    ("failed", {"pilotErrorCode": 1305}),
    ("failed", {"pilotErrorCode": 1235}),
    ("failed", {"pilotErrorCode": 1255}),
    ("failed", {"jobDispatcherErrorCode": 100}),
    ("failed", {"exeErrorCode": 4711}),
    ("failed", {}),
    ("cancelled", {}),
    ("closed", {}),
]


class Death(BaseException):
    """The process is gone."""


class Mortal:
    """A sink whose process dies at the next call of a method, before or after the server has done it."""

    def __init__(self, sink):
        self.sink, self.dies = sink, {}

    def __getattr__(self, name):
        def call(*arguments):
            when = self.dies.pop(name, "")
            if when == "before":
                raise Death
            answer = getattr(self.sink, name)(*arguments)
            if when == "after":
                raise Death
            return answer

        return call


class Side:
    """One prodsys with its server. `spoiled`: what happens to the next call of a path."""

    def __init__(self):
        self.now_s, self.spoiled, self.late = 0.0, {}, []
        self.model = PandaModel()
        self.wire = Wire("panda", self.model, lambda: self.now_s, lambda what: None, spoil=self.spoil)
        self.sink = Mortal(HttpJobSink(PANDA, ProdsysSession(self.wire)))

    def spoil(self, wire, client, request, work):
        how = self.spoiled.pop(request.path.rpartition("/")[2], None)
        if how is None:
            return work()
        if how == "refused":
            refusal = {"success": False, "message": "production or pilot role required"}
            return HttpReply(200, "application/json", json.dumps(refusal))
        if how == "twice":
            work()
            work()
        elif how != "nothing":
            self.store(request, how)
        raise NoAnswer("time out")

    def store(self, request, part):
        """The server stores a part of a submission now, the rest later, when its client has gone."""
        jobs = json.loads(json.loads(request.body)["jobs"])
        cut = round(part * len(jobs))
        for some in (jobs[:cut], jobs[cut:]):
            body = json.dumps({"jobs": json.dumps(some)}).encode()
            again = HttpRequest(request.method, request.path, request.query, request.headers, body)
            self.late.append(lambda again=again: self.wire.work(again))
        self.late.pop(-2)()

    def tick(self, seconds):
        self.now_s += seconds
        try:
            self.perform()
        except Death:
            pass
        self.sink.dies.clear()

    def live(self):
        return [job for _, job in sorted(self.model.jobs.items()) if job.status in LIVE]

    def end(self, place, status, facts):
        """One of the jobs that live in PanDA runs or ends."""
        jobs = self.live()
        if not jobs:
            return
        job = jobs[int(place * len(jobs))]
        n_events = int(job.attributes["jobParameters"].partition("PRODSYS_NEVENTS=")[2].split()[0])
        job.attributes |= {"nEvents": n_events, "jobMetrics": f"eventsWritten={n_events}"} | facts
        for file in job.files:
            file |= {"fsize": 100 + n_events % 100, "checksum": "ad:00000001"}
        self.model.advance(self.now_s)
        self.model._move(job, status)


class World(Side):
    """Rows in memory."""

    def __init__(self):
        super().__init__()
        queues = {"LONG": "panda", "short": "panda"}
        wires = {"panda": self.wire}
        self.rows = Production(
            wires, queues, lambda: self.now_s, lambda: None, StepKind.MERGE_DUMP, _panda=PANDA
        )
        self.rows._sinks["panda"] = self.sink
        for run, counts in RUNS.items():
            for place, n_events in enumerate(counts):
                self.rows.add(StepKind.RECONSTRUCT, run, 11001 + place, "LONG", n_events)

    def perform(self):
        self.rows.tick()

    def resend(self):
        for step in self.rows.steps.values():
            failed = step.status is StepStatus.FAILED and step.next_try_s is None
            if failed or step.status is StepStatus.MANUAL_CHECK:
                self.rows.try_again(step)

    def seen(self):
        return {
            (step.kind, step.run, step.chunk): (
                *(step.status, step.charged, step.uncharged, step.next_try_s),
                [(a.number, a.panda_id, a.ended) for a in step.attempts],
                step.story,
            )
            for step in self.rows.steps.values()
        }


class Services(Side):
    """Django's."""

    def __init__(self, rig):
        super().__init__()
        (site,) = rig.config.sites
        queues = {"panda_queue": "LONG", "merge_queue": "short"}
        commands = site.commands | {"reconstruct": "ddd {raw} {dump}"}
        retry = Retry(
            uncharged_max=RULES.uncharged_max, backoff_s=RULES.backoff_s, charged_wait_s=RULES.charged_wait_s
        )
        sites = [site.model_copy(update={**queues, "commands": commands})]
        self.config = rig.config.model_copy(update={"panda": PANDA, "retry": retry, "sites": sites})
        self.rig, self.begin = rig, rig.now
        merge = {"dump_bytes": MERGE_LIMITS.bytes_max}
        self.task = rig.create(RUNS, type="DDD filtering", max_attempts=MAX_ATTEMPTS, merge=merge)
        rig.set("ready")
        rig.tick(0)
        rig.set("send")
        steps_stage(Mover("test", Role.SERVICE, self.now))

    @property
    def now(self):
        return self.begin + timedelta(seconds=self.now_s)

    def perform(self):
        report = tick(self.config, self.sink, self.now)
        assert not report.failed

    def resend(self):
        for status in ("failed", "manual check is needed"):
            steps_resend(resend_candidates(self.task, status), as_manager("ann", self.now))

    def seen(self):
        found = {}
        stories = Transition.objects.filter(subject="step").order_by("pk")
        for step in Step.objects.filter(kind__in=("reconstruct", "merge dump")).select_related(
            "run", "job", "group"
        ):
            wait = step.next_try_at and (step.next_try_at - self.begin).total_seconds()
            attempts = PandaAttempt.objects.filter(step=step).select_related("end").order_by("number")
            story = [
                (row.old, row.new) for row in stories if row.subject_id == step.pk and row.old != "defined"
            ]
            found[step.kind, step.run.number, step.job.chunk if step.job else step.group.piece] = (
                *(step.status, step.charged, step.uncharged, wait),
                [(a.number, a.panda_id, ended(a)) for a in attempts],
                story,
            )
        return found


def ended(attempt):
    end = getattr(attempt, "end", None)
    return end and (end.status if end.status == "not sent" else f"{end.status} {end.reason}")


def history(chooser):
    """Acts by name with their arguments."""
    for _ in range(LENGTH):
        match chooser.choice(
            ["run", "end", "end", "end", "kill", "lose", "lose", "die", "late", "resend", ""]
        ):
            case "run":
                yield "end", (chooser.random(), "running", {})
            case "end":
                yield "end", (chooser.random(), *chooser.choice(ENDS))
            case "kill":
                yield "kill", (chooser.random(),)
            case "lose":
                paths = ("submit", "submit", "get_status", "get_description_incl_archive", "get_job_ids")
                path = chooser.choice(paths)
                how = chooser.choice(["nothing", 0.0, 0.5, 1.0, "twice", "refused"])
                yield "lose", (path, how if path == "submit" else "nothing")
            case "die":
                method = chooser.choice(["submit", "submit", "descriptions", "statuses", "job_ids"])
                yield "die", (method, chooser.choice(["before", "after"]))
            case "late":
                yield "late", ()
            case "resend":
                yield "resend", ()
        yield "tick", (chooser.choice([1.0, 30.0, 400.0, 1000.0, 3000.0]),)


def perform(side, act, arguments):
    match act:
        case "end":
            side.end(*arguments)
        case "kill":
            jobs = side.live()
            if jobs:
                side.model.advance(side.now_s)
                side.model.order_end(jobs[int(arguments[0] * len(jobs))].panda_id, None, "a person")
        case "lose":
            side.spoiled[arguments[0]] = arguments[1]
        case "die":
            side.sink.dies[arguments[0]] = arguments[1]
        case "late":
            while side.late:
                side.late.pop(0)()
        case _:
            getattr(side, act)(*arguments)


def difference(services, world, told):
    """The rows that differ, and the last acts before."""
    keys = [key for key in {*services, *world} if services.get(key) != world.get(key)]
    rows = [f"{key}\n  services {services.get(key)}\n  world    {world.get(key)}" for key in keys]
    return "\n".join([*rows, *map(str, told[-6:])])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_services_and_the_virtual_world_make_the_same_of_the_same_history(rig, seed):
    sides = (World(), Services(rig))
    told = []
    for act, arguments in history(random.Random(seed)):
        told.append((act, *arguments))
        for side in sides:
            perform(side, act, arguments)
        world, services = (side.seen() for side in sides)
        assert services == world, difference(services, world, told)
    assert {key[0] for key in world} >= {"reconstruct"}
