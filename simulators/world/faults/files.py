"""The shared filesystem shows what is old, half or nothing, is full, fails, or stops for everybody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulators.world.faults.fault import Fault, Site
from simulators.world.filefaults import Rule, Wrong

# What a client may see too late, in any order, without harm: everything but `closed` for agents and node journals
# for the edge, whose bound the site declares (DESIGN 3, settle_s).
_HARMLESS = ("claim.", "/door", "manifest", "commands", "launched", "turned-away")


def _rule(site: Site, kind: Wrong, name: str, client: str, part: str, longest_s: float, shares: Any) -> Fault:
    """A rule of this kind for a drawn time and share."""
    start_s, end_s = site.window(600.0, longest_s)
    share = site.random.uniform(*shares)
    rule = Rule(kind, client, part, start_s, end_s, share)
    fault = Fault(name, start_s, end_s, f"{share:.0%} of {part or 'everything'} for {client or 'everybody'}")
    return _counted(site, fault, kind, rule)


def _counted(site: Site, fault: Fault, kind: Wrong, rule: Rule) -> Fault:
    """Install the rule while the fault lasts; count what it changed in that time."""
    faults = site.world.faults
    before = [0]

    def begin() -> None:
        faults.rules.append(rule)
        before[0] = site.world.counted[kind]

    def end() -> None:
        faults.rules.remove(rule)
        for _ in range(min(1, site.world.counted[kind] - before[0])):
            site.fired(fault.kind)

    fault.begin, fault.end = begin, end
    return fault


def unlisted(site: Site) -> Fault:
    """A directory's listing leaves names out that open."""
    part = site.random.choice(_HARMLESS)
    return _rule(site, Wrong.UNLISTED, "unlisted", "edge", part, 4 * 3600.0, (0.2, 0.8))


def stale_after_fresh(site: Site) -> Fault:
    """A door that was read as new is read as old again."""
    return _rule(site, Wrong.STALE, "stale-after-fresh", "", "/door", 12 * 3600.0, (0.8, 1.0))


def torn_line(site: Site) -> Fault:
    """The edge sees only a half of the last line of a journal."""
    return _rule(site, Wrong.TORN, "torn-line", "edge", ".journal", 3 * 3600.0, (0.1, 0.6))


def nul_hole(site: Site) -> Fault:
    """Lines of a journal are seen as NUL bytes for a while."""
    return _rule(site, Wrong.HOLE, "nul-hole", "edge", ".journal", 3 * 3600.0, (0.05, 0.3))


def manifest_full(site: Site) -> Fault:
    """No room for a bundle's directory."""
    kind = site.random.choice((Wrong.DISK_FULL, Wrong.QUOTA))
    return _rule(site, kind, "manifest-full", "edge", "/making.", 3 * 3600.0, (0.5, 1.0))


def node_journal_full(site: Site) -> Fault:
    """No room for a line of a node journal."""
    kind = site.random.choice((Wrong.DISK_FULL, Wrong.QUOTA))
    return _rule(site, kind, "node-journal-full", "nid", ".journal", 2 * 3600.0, (0.1, 1.0))


def outputs_full(site: Site) -> Fault:
    """No room for outputs."""
    kind = site.random.choice((Wrong.DISK_FULL, Wrong.QUOTA))
    root = site.world.limits.site.output_root + "/"
    return _rule(site, kind, "outputs-full", "nid", root, 3 * 3600.0, (0.2, 1.0))


def io_error(site: Site) -> Fault:
    """Operations fail and nothing happened."""
    client = site.random.choice(("edge", "nid", "mom"))
    return _rule(site, Wrong.IO_ERROR, "io-error", client, "", 2 * 3600.0, (0.02, 0.3))


def reply_lost(site: Site) -> Fault:
    """Operations happen and their reply is an error."""
    client = site.random.choice(("edge", "nid", "mom"))
    return _rule(site, Wrong.REPLY_LOST, "reply-lost", client, "", 2 * 3600.0, (0.02, 0.3))


def beyond_the_bound(site: Site) -> Fault:
    """What others write is seen much later than the site declares."""
    start_s, end_s = site.window(1800.0, 6 * 3600.0)
    part, extra_s = site.random.choice(_HARMLESS), site.random.uniform(60.0, 1800.0)
    begun = [0]

    def late_s(client: str, path: str, drawn_s: float) -> float:
        return drawn_s + extra_s if part in path else drawn_s

    def begin() -> None:
        begun[0] = site.world.counted[Wrong.BEYOND]

    def end() -> None:
        if site.world.counted[Wrong.BEYOND] > begun[0]:
            site.fired("beyond-the-bound")

    says = f"{part} is seen {extra_s:.0f} s late"
    return Fault("beyond-the-bound", start_s, end_s, says, late_s=late_s, begin=begin, end=end)


def outage(site: Site) -> Fault:
    """The shared filesystem stops for everybody: evidence, journal, payload I/O and gates; then all goes on at once."""
    start_s, end_s = site.window(60.0, 3 * 3600.0)
    fault = Fault("outage", start_s, end_s, "nothing of the shared filesystem answers")
    begun = [0]

    def begin() -> None:
        begun[0] = site.world.counted[Wrong.OUTAGE]
        site.world.faults.outage(start_s, end_s)

    def end() -> None:
        if site.world.counted[Wrong.OUTAGE] > begun[0]:
            site.fired("outage")

    fault.begin, fault.end = begin, end
    return fault


def lost_for_ever(site: Site) -> Fault:
    """A line of a node journal that was there is NUL bytes from now on, for everybody."""
    start_s, end_s = site.window(2 * 3600.0, 8 * 3600.0)
    fault = Fault("lost-for-ever", start_s, end_s, "one line of a node journal")
    left = [1]

    def look() -> None:
        world = site.world
        if world.now_s >= end_s or not left[0]:
            return
        start = f"{world.limits.site.shared_dir}/bundles/"
        open_ids = {
            b for d in world.daemons if d.alive for b, x in d.state.bundles.items() if x.settled_at is None
        }
        paths = [p for p in world.shared.paths(start) if p.endswith(".journal")]
        paths = [p for p in paths if p[len(start) :].partition("/")[0] in open_ids]
        if paths:
            path = site.random.choice(paths)
            inode = world.shared.current(path)
            if inode is not None and len(inode.pieces) > 1:
                left[0] = 0
                world.shared.lose(path, site.random.randrange(len(inode.pieces)))
                site.fired("lost-for-ever")
        world.timers.set(world.now_s + 60.0, look)

    fault.begin = look
    return fault


FILES: tuple[Callable[[Site], Fault], ...] = (
    unlisted,
    stale_after_fresh,
    torn_line,
    nul_hole,
    manifest_full,
    node_journal_full,
    outputs_full,
    io_error,
    reply_lost,
    beyond_the_bound,
    outage,
    lost_for_ever,
)
