"""`pilot check --probe`: what only a batch job can tell. One node, a few seconds; what it made is removed.

The agent file is started as an agent is (dialect, launcher, interpreter of the configuration), so a node that cannot
run it is found here and not by a bundle.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import threading
import time
from pathlib import Path

from pilot.batch.cli import DIALECTS, BatchCli
from pilot.configkeys import Config, QueueSection
from pilot.launcher import make_launcher
from pilot.multijob.agentfile import build_agent_file
from pilot.multijob.node.files import Steps, perform, run_steps
from pilot.multijob.node.probe import ECHOES, NAMES, await_text, contest, say
from pilot.ports import BatchId, BatchRequest, BatchState, Listing, Refused
from pilot.rotation.surroundings import Check, Probed, Wanted, judge_probe
from pilot.rotation.wiring import WiringError, load_caldb, make_batch

RAN = "probe: a batch job ran"
LOOK_S, LIST_S = 0.5, 15.0
# The other side answers at once; half a minute is more than any cache and less than anybody's patience.
ANSWER_S = 30.0
SAID_MAX = 400


def probe_nodes(config: Config, name: str, wait_s: float) -> list[Check]:
    """Submit the probe for this queue, wait for its start at most `wait_s`, and judge what it found."""
    queue = next(queue for queue in config.queues if queue.name == name)
    probes = Path(config.shared_dir) / "probes"
    directory = probes / f"probe-{secrets.token_hex(4)}"
    batch, batch_id = make_batch(config), None
    try:
        wanted = _wanted(config, queue)
        directory.mkdir(parents=True)
        script = directory / "script.sh"
        script.write_text(_script(config, queue, directory, build_agent_file(config.shared_dir), wait_s))
        answer = batch.submit(str(script), directory.name)
        if not isinstance(answer, str):
            reason = f"{type(answer).__name__.lower()}: {answer.reason}"
            if not isinstance(answer, Refused):
                reason += f"; if it was taken all the same, its name is {directory.name}"
            return [Check(RAN, False, reason)]
        batch_id = BatchId(answer)
        return _meet(batch, batch_id, directory, wait_s, wanted)
    except WiringError as error:
        return [Check(RAN, False, str(error))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Check(RAN, False, f"{error}; it printed: {_printed(directory)}")]
    finally:
        if batch_id is not None:
            batch.cancel(batch_id)
        shutil.rmtree(directory, ignore_errors=True)


def _wanted(config: Config, queue: QueueSection) -> Wanted:
    caldb = load_caldb(config.caldb, queue)
    snapshot_mib = -(-caldb["size"] // 2**20) if caldb is not None else 0
    memory_mib, weak = config.node.usable_memory_mib or 0, config.protocol.fencing == "weak"
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return Wanted(snapshot_mib, memory_mib, queue.slots, config.protocol.visible_s, weak, boot_id, NAMES)


def _script(config: Config, queue: QueueSection, directory: Path, agent: Path, wait_s: float) -> str:
    """As `multijob.script.render_script`, for the probe."""
    batch, node = config.batch, config.node
    request = BatchRequest(
        directory.name,
        queue.batch_queue,
        1,
        queue.slots,
        queue.walltime.min_s,
        f"{directory}/batch.out",
        tuple(batch.features),
        batch.account,
        batch.flags,
    )
    probe = (node.python, "-I", "-S", str(agent), "probe", "--directory", str(directory))
    words = make_launcher(config.launcher.kind, queue.slots, config.launcher.argv).command(0, probe)
    words = (*words, "--local-dir", node.local_dir, "--seconds-left", str(min(ANSWER_S, wait_s)))
    return f"#!/bin/sh\n{DIALECTS[batch.dialect].render_directives(request)}exec {shlex.join(words)}\n"


def _meet(batch: BatchCli, batch_id: BatchId, directory: Path, wait_s: float, wanted: Wanted) -> list[Check]:
    """Wait until the node says that it is there, then do the edge's half."""
    began_s = time.monotonic()
    here, listed_s, over_s = directory / "here", began_s, None
    while not (here.exists() and here.read_text().endswith("\n")):
        now_s = time.monotonic()
        if now_s - began_s > wait_s:
            raise TimeoutError(f"{batch_id} has not started in {wait_s:.0f} s; it is cancelled")
        if over_s is None and now_s - listed_s > LIST_S:
            listed_s = now_s
            over_s = now_s if _is_over(batch, batch_id) else None
        if over_s is not None and now_s - over_s > wanted.visible_s:
            raise TimeoutError(f"{batch_id} is over and wrote nothing into shared_dir")
        threading.Event().wait(LOOK_S)
    waited_s = time.monotonic() - began_s
    found = Probed(json.loads(here.read_text()))
    run_steps(_edge_steps(str(directory), found), perform)
    ran = Check(RAN, True, f"{batch_id} on {found.facts['host']}, {waited_s:.0f} s after qsub")
    return [ran, *judge_probe(found, wanted)]


def _edge_steps(directory: str, found: Probed) -> Steps[None]:
    """The edge's half, by this host's clock."""
    for number in range(ECHOES):
        began_s = time.monotonic()
        yield from say(directory, f"ping.{number}", {})
        yield from await_text(f"{directory}/pong.{number}", ANSWER_S)
        found.longest_s = max(found.longest_s, time.monotonic() - began_s)
    yield from say(directory, "start", {})
    found.edge = yield from contest(directory, "edge", range(NAMES))
    found.node = json.loads((yield from await_text(f"{directory}/won", ANSWER_S)))["numbers"]


def _is_over(batch: BatchCli, batch_id: BatchId) -> bool:
    answer = batch.list_jobs((batch_id,))
    if not isinstance(answer, Listing):
        return False
    return batch_id in answer.unknown_ids or any(job.state is BatchState.OVER for job in answer.jobs)


def _printed(directory: Path) -> str:
    try:
        return (directory / "batch.out").read_text(errors="replace")[-SAID_MAX:].strip() or "nothing"
    except OSError:
        return "nothing"
