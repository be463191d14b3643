"""What goes wrong between the PanDA servers and their clients, and what people and servers do to jobs there."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from simulators.panda.dispatch import HttpReply, HttpRequest
from simulators.panda.job import FINAL
from simulators.panda.rules import Wish
from simulators.world.faults.fault import Fault, Site
from simulators.world.panda import PILOT, PRODSYS, NoAnswer, Wire
from simulators.world.production import Killed

PAGE = "<html><head><title>502 Bad Gateway</title></head><body>Bad Gateway</body></html>"
Work = Callable[[], HttpReply]
UNDER_WAY = ("starting", "running")
# A mistake of fewer orders looks like a person's; some of those ordered end by themselves before it is learnt.
MASS_MIN, MASS_LEFT_MIN = 12, 8
_FETCH, _REPORT = ("getJob", "acquire_jobs"), ("updateJobsInBulk", "update_jobs_bulk")


def _spoiling(
    site: Site,
    kind: str,
    longest_s: float,
    says: str,
    spoil: Callable[[Wire, str, HttpRequest, Work], HttpReply | None],
) -> Fault:
    """While it lasts, a drawn share of the calls goes through `spoil`; None: this call was left alone."""
    start_s, end_s = site.window(1800.0, longest_s)
    share = site.random.uniform(0.1, 0.9)

    def bent(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply:
        if site.random.random() > share:
            return work()
        reply = spoil(wire, client, request, work)
        if reply is None:
            return work()
        return reply

    fault = Fault(kind, start_s, end_s, f"{says} ({share:.0%})")
    fault.spoil = bent
    return fault


def html_answer(site: Site) -> Fault:
    """A proxy answers with a page of HTML, before or after the server has worked."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply:
        site.fired("html-answer")
        if site.random.random() < 0.5:
            work()
        return HttpReply(site.random.choice((200, 502)), "text/html", PAGE)

    return _spoiling(site, "html-answer", 5 * 3600.0, "HTML in place of an answer", spoil)


def server_error(site: Site) -> Fault:
    """5xx before or after the commit."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply:
        site.fired("server-error")
        if site.random.random() < 0.5:
            work()
        return HttpReply(site.random.choice((500, 503)), "text/plain", "server error")

    return _spoiling(site, "server-error", 5 * 3600.0, "HTTP 5xx", spoil)


def cut_answer(site: Site) -> Fault:
    """The text of an answer ends in the middle."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply:
        site.fired("cut-answer")
        reply = work()
        return HttpReply(reply.status, reply.content_type, reply.text[: len(reply.text) // 2])

    return _spoiling(site, "cut-answer", 5 * 3600.0, "a half of the text", spoil)


def doubled_request(site: Site) -> Fault:
    """A proxy sends a request twice; the second answer comes back."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply | None:
        if request.path.endswith("job/submit"):
            # Two jobs of one name whose submitter had a good answer: nobody looks for the second one.
            return None
        site.fired("doubled-request")
        work()
        return work()

    return _spoiling(site, "doubled-request", 5 * 3600.0, "requests arrive twice", spoil)


def partial_bulk(site: Site) -> Fault:
    """A bulk answer names only the first half of its items."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply | None:
        if not request.path.endswith(_REPORT):
            return None
        reply = work()
        try:
            value = json.loads(reply.text)
        except ValueError:
            return reply
        items = value[1] if isinstance(value, list) and len(value) == 2 else value.get("data")
        if not isinstance(items, list) or len(items) < 2:
            return reply
        site.fired("partial-bulk")
        del items[len(items) // 2 :]
        return HttpReply(reply.status, reply.content_type, json.dumps(value))

    return _spoiling(site, "partial-bulk", 8 * 3600.0, "half of the items", spoil)


def malformed_job(site: Site) -> Fault:
    """One job of a fetch cannot be read, or its text cannot be run; its neighbours are whole."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply | None:
        if not request.path.endswith(_FETCH):
            return None
        reply = work()
        try:
            value = json.loads(reply.text)
            jobs = value["jobs"] if "jobs" in value else value["data"]["jobs"]
            job = site.random.choice(jobs)
        except (ValueError, TypeError, KeyError, IndexError):
            return reply
        site.fired("malformed-job")
        job.update(site.random.choice(_BENT))
        return HttpReply(reply.status, reply.content_type, json.dumps(value))

    return _spoiling(site, "malformed-job", 6 * 3600.0, "a job that makes no sense", spoil)


_BENT: tuple[dict[str, Any], ...] = (
    {"jobPars": "PRODSYS_WORK=w1 'never closed"},
    {"jobPars": "a\nb"},
    {"jobPars": None},
    {"PandaID": "no number"},
    {"attemptNr": None},
    {"trf": "no such kind \x1b[31m", "transformation": "no such kind \x1b[31m"},
    {"outFiles": "../../etc/passwd"},
)


def prodsys_request_lost(site: Site) -> Fault:
    """Requests of prodsys never arrive."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply | None:
        if client != PRODSYS:
            return None
        site.fired("prodsys-request-lost")
        raise NoAnswer("request lost")

    return _spoiling(site, "prodsys-request-lost", 3 * 3600.0, "requests of prodsys", spoil)


def prodsys_answer_lost(site: Site) -> Fault:
    """PanDA does what prodsys asks, and its answer is lost."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply | None:
        if client != PRODSYS:
            return None
        site.fired("prodsys-answer-lost")
        work()
        raise NoAnswer("answer lost")

    return _spoiling(site, "prodsys-answer-lost", 5 * 3600.0, "answers to prodsys", spoil)


def submission_goes_on(site: Site) -> Fault:
    """prodsys' client gives up, and the server goes on inserting minutes later."""

    def spoil(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply | None:
        if not request.path.endswith("job/submit"):
            return None
        site.fired("submission-goes-on")
        site.world.timers.set(site.world.now_s + site.random.uniform(1.0, 800.0), partial(_at_last, work))
        raise NoAnswer("time out")

    return _spoiling(site, "submission-goes-on", 8 * 3600.0, "submissions end after their client", spoil)


def _at_last(work: Work) -> None:
    with contextlib.suppress(NoAnswer):
        work()


def competing_pilot(site: Site) -> Fault:
    """Another pilot takes jobs of our queues and never reports them."""
    start_s, end_s = site.window(600.0, 3 * 3600.0)

    def take() -> None:
        if site.world.now_s >= end_s:
            return
        for name, wire in site.world.wires.items():
            queues = [queue for queue, server in site.world.source.server_of.items() if server == name]
            wire.model.advance(site.world.now_s)
            if wire.model.hand_out(Wish(site.random.choice(queues), 2)):
                site.fired("competing-pilot")
        site.world.timers.set(site.world.now_s + 600.0, take)

    return Fault("competing-pilot", start_s, end_s, "takes two jobs every ten minutes", begin=take)


def panda_outage(site: Site) -> Fault:
    """No call reaches PanDA for more than two hours; its watcher works before our first heartbeat."""
    length_s = site.random.uniform(2.2, 4.0) * 3600.0
    start_s = site.random.uniform(0.0, site.calm_s - length_s)
    fault = Fault("panda-outage", start_s, start_s + length_s, "no call reaches any server")

    def bent(wire: Wire, client: str, request: HttpRequest, work: Work) -> HttpReply:
        if client == PILOT:
            site.fired("panda-outage")
        raise NoAnswer("no route")

    fault.spoil = bent
    return fault


def person_ends_a_job(site: Site) -> Fault:
    """A person has PanDA end jobs that wait or run."""
    start_s, end_s = site.window(2 * 3600.0, 8 * 3600.0)
    left = [site.random.randint(1, 4)]
    fault = Fault("person-ends-a-job", start_s, end_s, f"{left[0]} jobs")

    def order() -> None:
        if site.world.now_s >= end_s or not left[0]:
            return
        jobs = [job for job in site.world.source.jobs() if job.status not in FINAL]
        if jobs and site.random.random() < 0.3:
            job = site.random.choice(jobs)
            wire = next(w for w in site.world.wires.values() if job.panda_id in w.model.jobs)
            if wire.model.order_end(job.panda_id, None, "a person"):
                left[0] -= 1
                site.fired("person-ends-a-job")
        site.world.timers.set(site.world.now_s + 300.0, order)

    fault.begin = order
    return fault


def mass_order(site: Site) -> Fault:
    """A server orders the end of everything that it knows to be under way, by mistake, and takes it back later: at
    the latest when so few jobs are left that the order could be a person's."""
    start_s, end_s = site.window(2 * 3600.0, 6 * 3600.0)
    name = site.random.choice(sorted(site.world.wires))
    fault = Fault("mass-order", start_s, end_s, f"{name} orders all of its jobs to end")
    ordered: set[int] = set()

    def order() -> None:
        wire = site.world.wires[name]
        wire.model.advance(site.world.now_s)
        live = [job for job in wire.model.jobs.values() if job.status in UNDER_WAY and not job.command]
        if _held_by_us(site, [job.panda_id for job in live]) >= MASS_MIN:
            for job in live:
                job.attributes["commandToPilot"] = "tobekilled"
                ordered.add(job.panda_id)
            site.fired("mass-order")
            watch()
        elif site.world.now_s < end_s:
            site.world.timers.set(site.world.now_s + 300.0, order)

    def watch() -> None:
        model = site.world.wires[name].model
        known = [i for i in ordered if i in model.jobs and model.jobs[i].status in UNDER_WAY]
        if _held_by_us(site, known) < MASS_LEFT_MIN or site.world.now_s >= end_s:
            take_back()
        else:
            site.world.timers.set(site.world.now_s + 10.0, watch)

    def take_back() -> None:
        for job in site.world.wires[name].model.jobs.values():
            if job.panda_id in ordered:
                job.attributes.pop("commandToPilot", None)

    def end() -> None:
        take_back()
        # A server restored in between has it again.
        site.world.timers.set(site.calm_s, take_back)

    fault.begin, fault.end = order, end
    return fault


def _held_by_us(site: Site, ordered: Iterable[int]) -> int:
    """How many of these jobs the pilot has, and has not judged yet; another pilot may have the others."""
    daemon = site.daemon()
    records = () if daemon is None else daemon.state.jobs.values()
    left = set(ordered) - {run.panda_id for run in site.world.truth.payloads if run.end_s is not None}
    return sum(record.panda_id in left and record.verdict is None for record in records)


def server_restored(site: Site) -> Fault:
    """A server is put back as it was hours ago. PandaIDs are not given a second time."""
    end_s = site.random.uniform(0.4, 1.0) * site.calm_s
    start_s = end_s - site.random.uniform(600.0, 0.35 * site.calm_s)
    kept: list[Any] = []
    name = site.random.choice(sorted(site.world.wires))
    fault = Fault("server-restored", start_s, end_s, f"{name}, as of {end_s - start_s:.0f} s before")

    def begin() -> None:
        wire = site.world.wires[name]
        wire.model.advance(site.world.now_s)
        kept.append(copy.deepcopy(wire.model))

    def end() -> None:
        wire = site.world.wires[name]
        next_id, wire.model = wire.model.next_id, kept[0]
        wire.model.next_id = next_id
        wire.model.advance(site.world.now_s)
        site.fired("server-restored")

    fault.begin, fault.end = begin, end
    return fault


def prodsys_crash(site: Site) -> Fault:
    """prodsys is killed between two effects, again and again."""
    start_s, end_s = site.window(1800.0, 6 * 3600.0)
    share = site.random.uniform(0.02, 0.3)
    fault = Fault("prodsys-crash", start_s, end_s, f"at {share:.0%} of the boundaries")

    def ask() -> None:
        if site.random.random() < share:
            site.fired("prodsys-crash")
            raise Killed

    fault.begin, fault.end = partial(site.boundaries.append, ask), partial(site.boundaries.remove, ask)
    return fault


PANDA: tuple[Callable[[Site], Fault], ...] = (
    html_answer,
    server_error,
    cut_answer,
    doubled_request,
    partial_bulk,
    malformed_job,
    prodsys_request_lost,
    prodsys_answer_lost,
    submission_goes_on,
    competing_pilot,
    panda_outage,
    person_ends_a_job,
    mass_order,
    server_restored,
    prodsys_crash,
)
