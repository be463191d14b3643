"""What operators do at the terminal: they pause or drain a queue, and let it go on later."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

from pilot.rotation.commands import Command
from simulators.world.faults.fault import Fault, Site

# Without an answer (the daemon is down, or was killed before it answered) the person tries again after so long.
AGAIN_S = 120.0


def operator_order(site: Site) -> Fault:
    """A person pauses or drains a queue, and resumes it later."""
    start_s, end_s = site.window(600.0, 3 * 3600.0)
    verb, cancel = site.random.choice((("pause", False), ("drain", False), ("drain", True)))
    queue = site.random.choice(sorted(site.world.limits.queues))
    says = f"pilot {verb} {queue}" + (" --cancel-queued" if cancel else "")
    fault = Fault("operator-order", start_s, end_s, says)
    serials = itertools.count(1)
    wanted = [verb]

    def order(verb: str, asked: int | None = None) -> None:
        """Order it until it is done, or until something else is wanted."""
        if wanted != [verb]:
            return
        if asked is not None and site.world.told.get(asked, (False, ()))[0]:
            wanted.clear()
            if verb != "resume":
                site.fired("operator-order")
            return
        daemon, serial = site.daemon(), next(serials)
        if daemon is not None:
            command = Command(serial, verb, (queue,), cancel_queued=cancel and verb == "drain")
            daemon.commands.append(command)
        site.world.timers.set(site.world.now_s + AGAIN_S, partial(order, verb, serial))

    def end() -> None:
        wanted[:] = ["resume"]
        order("resume")

    fault.begin, fault.end = partial(order, verb), end
    return fault


PEOPLE: tuple[Callable[[Site], Fault], ...] = (operator_order,)
