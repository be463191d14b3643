"""What must be so once everything is healed: the second phase of a seed. Each check returns stories of what is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pilot.multijob.events import BundlePlanned, Event
from pilot.rotation.census import live_bundles
from simulators.torque.job import Letter
from simulators.world.world import Daemon, World

# Wanted pilots must live so long after the healing, where jobs wait for them.
REACHED_MAX_S = 3600.0
LOOKS = 4


@dataclass(slots=True)
class Rest:
    """What is written down between the healing and the end."""

    healed_s: float
    missing: dict[str, str] = field(default_factory=dict)
    # looks in a row at which pilots were missing, by queue: between two bundles one is missing for a moment
    in_a_row: dict[str, int] = field(default_factory=dict)
    # most pilots of a queue that lived at once since the last look
    most: dict[str, int] = field(default_factory=dict)

    def event(self, daemon: Daemon, event: Event) -> None:
        """Where bundles are short, one of the wanted pilots has often just ended: the fullest moment counts."""
        if isinstance(event, BundlePlanned):
            live = len(live_bundles(daemon.state, event.queue))
            self.most[event.queue] = max(live, self.most.get(event.queue, 0))

    def look(self, world: World) -> None:
        """Where jobs have waited at the server for that long, the wanted number of pilots must live."""
        if world.now_s < self.healed_s + REACHED_MAX_S:
            return
        long_ago_s = world.now_s - REACHED_MAX_S
        waiting = {job.queue for job in world.source.waiting() if job.since_s < long_ago_s}
        for daemon in (daemon for daemon in world.daemons if daemon.alive):
            for queue in world.limits.queues.values():
                live = max(len(live_bundles(daemon.state, queue.name)), self.most.pop(queue.name, 0))
                few = queue.panda_queue in waiting and live < min(queue.wanted, queue.queued_max)
                self.in_a_row[queue.name] = self.in_a_row.get(queue.name, 0) + 1 if few else 0
                if self.in_a_row[queue.name] >= LOOKS:
                    story = f"{live} of {queue.wanted} pilots live at {world.now_s:.0f} s and jobs wait"
                    self.missing.setdefault(queue.name, story)


def wanted_not_reached(world: World, rest: Rest) -> Iterator[str]:
    """An hour after the healing the wanted number of pilots lives where jobs wait."""
    for queue, story in rest.missing.items():
        yield f"{queue}: {story}"


def alarm_left(world: World, rest: Rest) -> Iterator[str]:
    """Every alarm is cleared once its cause is over."""
    for daemon in (daemon for daemon in world.daemons if daemon.alive):
        for name, alarm in daemon.memory.alarms.items():
            yield f"{name} of {alarm.since_s:.0f} s is still raised: {alarm.reason}"


def batch_job_left(world: World, rest: Rest) -> Iterator[str]:
    """No batch job of ours is left in the batch system."""
    for job in world.torque.jobs.values():
        if job.state is not Letter.COMPLETE:
            yield f"{job.batch_id} ({job.submission.name}) is {job.state.value} at the end"


def files_left(world: World, rest: Rest) -> Iterator[str]:
    """No file of a bundle is left beyond its retention."""
    known = {bundle_id for daemon in world.daemons if daemon.alive for bundle_id in daemon.state.bundles}
    start = f"{world.limits.site.shared_dir}/bundles/"
    left = {path[len(start) :].partition("/")[0] for path in world.shared.paths(start)}
    for bundle_id in sorted(left - known):
        yield f"files of {bundle_id} are there and no daemon knows it"


REST = {check.__name__: check for check in (wanted_not_reached, alarm_left, batch_job_left, files_left)}
