"""Applications under way: starts ranks on nodes for waiting apruns, and ends what has to end with them.

How an application ends is decided in aprun.py; this carries it out.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from simulators.torque.aprun import (
    Application,
    AprunOptions,
    RankEnd,
    final_words,
    parse_aprun,
    place_ranks,
)
from simulators.torque.job import Letter
from simulators.torque.keepers import KeeperProcess
from simulators.torque.model import TorqueModel
from simulators.torque.request import Reply, Request
from simulators.torque.wire import Message, Peer


@dataclass(slots=True)
class _Aprun:
    """An application and the command that waits for it. `interrupted`: a signal that ended the command's wait."""

    application: Application
    command: Peer
    interrupted: int | None = None
    pids: dict[int, int] = field(default_factory=dict)


class Applications:
    """All applications of a machine. `nodes` are the keepers of the nodes that are up, shared with the machine."""

    def __init__(
        self,
        model: TorqueModel,
        nodes: Mapping[int, KeeperProcess],
        local_dir: Callable[[int], str],
        now: Callable[[], float],
        log: Callable[..., None],
    ) -> None:
        self._model, self._nodes, self._local_dir, self._now, self._log = model, nodes, local_dir, now, log
        self._apruns: dict[int, _Aprun] = {}
        self._apid = 0

    def start(self, command: Peer, request: Request, umask: int, files: tuple[int, ...]) -> Reply | None:
        """Start the application of an aprun that waits; None when it runs. The ranks write into copies of `files`."""
        made = self._application(request)
        if isinstance(made, Reply):
            return made
        self._apruns[made.apid] = _Aprun(made, command)
        variables = {**request.environment, **dict(made.options.environment)}
        for rank, number in made.nodes.items():
            environment = {
                **variables,
                "ALPS_APP_ID": str(made.apid),
                "ALPS_APP_PE": str(rank),
                "ALPS_APP_DEPTH": str(made.options.depth),
                "NODE_NAME": self._model.site.node_name(number),
                "NODE_ADDRESS": self._model.site.node_address(number),
                "NODE_LOCAL_DIR": self._local_dir(number),
            }
            name = f"{made.apid}.{rank}"
            self._nodes[number].start(name, made.options.argv, request.cwd, environment, umask, files=files)
        return None

    def _application(self, request: Request) -> Application | Reply:
        options = parse_aprun(request.words, self._model.site.slots)
        if not isinstance(options, AprunOptions):
            return options
        batch_id = request.environment.get("PBS_JOBID", "")
        job = self._model.jobs.get(batch_id)
        if job is None or job.state is not Letter.RUNNING or job.script_ended_at is not None:
            return Reply(stderr="aprun: no reservation: PBS_JOBID names no running batch job\n", exit_code=1)
        busy = {number for aprun in self._apruns.values() for number in aprun.application.left()}
        order = [share.node for share in job.placement]
        nodes = place_ranks(options, [n for n in order if n in self._nodes and n not in busy])
        if isinstance(nodes, Reply):
            return nodes
        self._apid += 1
        return Application(self._apid, batch_id, options, nodes)

    def forward(self, command: Peer, number: int) -> None:
        """aprun got a signal: pass it on to its ranks."""
        aprun = self._of(command)
        if aprun is None:
            return
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            aprun.interrupted = number
        for node in aprun.application.left():
            for rank in aprun.application.ranks_on(node):
                self._nodes[node].signal(f"{aprun.application.apid}.{rank}", number, session=False)

    def aprun_gone(self, command: Peer) -> None:
        """aprun itself has ended before its ranks: they are ended by SIGKILL."""
        aprun = self._of(command)
        if aprun is not None:
            self._end_ranks(aprun, signal.SIGKILL)

    def _of(self, command: Peer) -> _Aprun | None:
        return next((aprun for aprun in self._apruns.values() if aprun.command is command), None)

    def job_over(self, batch_id: str) -> None:
        """The reservation is gone: whatever still runs in it is ended."""
        for aprun in [a for a in self._apruns.values() if a.application.batch_id == batch_id]:
            self._end_ranks(aprun, signal.SIGKILL)

    def node_died(self, number: int) -> None:
        """Ranks of a dead node have ended; ALPS ends the others of their applications."""
        for aprun in list(self._apruns.values()):
            for rank in aprun.application.ranks_on(number):
                self._rank_ended(aprun, rank, RankEnd(None, signal.SIGKILL), reason="its node died")

    def rank_speaks(self, message: Message) -> None:
        """A node reports on a rank."""
        apid, _, rank = message.get("name", "").partition(".")
        aprun = self._apruns.get(int(apid)) if apid else None
        if aprun is None:
            return  # the end of a rank that was noted when it was ended
        match message["did"]:
            case "started":
                aprun.pids[int(rank)] = message["pid"]
                self._log_rank("rank_started", aprun, int(rank), argv=list(aprun.application.options.argv))
            case "failed":
                code = 126 if message["errno"] == errno.EACCES else 127
                self._rank_ended(aprun, int(rank), RankEnd(code, None), reason=os.strerror(message["errno"]))
            case "ended":
                used = (message["utime_s"], message["stime_s"], message["rss_kib"])
                how = RankEnd(message["code"], message["signal"], *used)
                self._rank_ended(aprun, int(rank), how, orphans=message["orphans"])

    def _rank_ended(self, aprun: _Aprun, rank: int, how: RankEnd, **more: Any) -> None:
        end_all = aprun.application.end(rank, how)
        self._log_rank("rank_ended", aprun, rank, code=how.code, signal=how.signal, **more)
        if end_all:
            self._end_ranks(aprun, signal.SIGKILL)
        elif aprun.application.over:
            self._application_over(aprun)

    def _end_ranks(self, aprun: _Aprun, number: int) -> None:
        """SIGKILL to whatever is left of an application, noted at once: its nodes are free for the next one."""
        for node in aprun.application.left():
            if node in self._nodes:
                self._nodes[node].sweep()
            for rank in aprun.application.ranks_on(node):
                aprun.application.end(rank, RankEnd(None, number))
                self._log_rank("rank_ended", aprun, rank, code=None, signal=number)
        self._application_over(aprun)

    def _application_over(self, aprun: _Aprun) -> None:
        if self._apruns.pop(aprun.application.apid, None) is None:
            return
        when = f"{datetime.fromtimestamp(self._now(), UTC):%a %b %d %H:%M:%S %Y}"
        reply = final_words(aprun.application, when, aprun.interrupted)
        try:
            aprun.command.send({"stdout": reply.stdout, "stderr": reply.stderr, "exit_code": reply.exit_code})
        except OSError:
            pass  # the aprun is gone: its ranks were ended because of that

    def _log_rank(self, event: str, aprun: _Aprun, rank: int, **more: Any) -> None:
        application = aprun.application
        node = self._model.site.node_name(application.nodes[rank])
        where = {"batch_id": application.batch_id, "apid": application.apid, "node": node}
        self._log(event, **where, rank=rank, pid=aprun.pids.get(rank), **more)
