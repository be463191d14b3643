"""Too little space or too few inodes: an alarm in time, no new bundle, and what runs goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rig import Rig, Site, make_job, make_limits

from pilot.multijob import actions as a
from pilot.multijob.model import Limits
from pilot.multijob.recognise import Now
from pilot.multijob.space import low
from pilot.multijob.spacefiles import FileSpace
from pilot.ports import SpaceSeen, Unavailable
from pilot.rotation.why import why


def limits_with(**changes: Any) -> Limits:
    limits = make_limits(directories={"shared_dir": "/shared", "output_root": "/out"}, **changes)
    queue = replace(limits.queues["long"], fill_wait_s=0.0)
    return replace(limits, queues={"long": queue})


@pytest.mark.parametrize(
    ("mib", "inodes", "held"),
    [
        (1024, 10000, False),
        (1023, 10000, True),
        (1024, 9999, True),
        (1024, None, False),
        (0, 0, True),
    ],
)
def test_the_table_of_space(mib: int, inodes: int | None, held: bool) -> None:
    assert (low("shared_dir", SpaceSeen(mib, inodes), make_limits()) is not None) is held


class Filling(Site):
    """A site whose filesystem has so much left."""

    seen: Any = SpaceSeen(5000, None)

    def respond(self, action: Any) -> Any:
        if not isinstance(action, a.LookAtSpace):
            return super().respond(action)
        if isinstance(self.seen, Unavailable):
            return self.seen
        return {"shared_dir": SpaceSeen(10**6, None), "output_root": self.seen}


def test_a_full_filesystem_keeps_new_bundles_back_until_there_is_room() -> None:
    rig, site = Rig(limits_with()), Filling([make_job(number) for number in range(1, 30)])
    site.seen = SpaceSeen(12, None)
    rig.run(site.respond, 10, 20.0)
    assert rig.state.totals["long"].bundles == 0
    assert "12 MiB free in output_root" in rig.memory.alarms["space-output_root"].reason
    now = Now("2026-01-01T12:00:00+00:00", rig.now_s)
    assert "12 MiB free in output_root" in why(rig.state, rig.memory, "long", now, rig.limits)[1]
    site.seen = SpaceSeen(5000, None)
    rig.run(site.respond, 10, 20.0)
    assert rig.state.totals["long"].bundles > 0
    assert not rig.memory.alarms


def test_a_filesystem_that_tells_nothing_is_not_full() -> None:
    rig, site = Rig(limits_with()), Filling([make_job(number) for number in range(1, 30)])
    site.seen = Unavailable("no answer")
    rig.run(site.respond, 10, 20.0)
    assert rig.state.totals["long"].bundles > 0


def test_one_look_in_a_while_for_all_directories() -> None:
    rig, site = Rig(limits_with()), Filling([])
    looks = [x for x in rig.run(site.respond, 120, 1.0) if isinstance(x, a.LookAtSpace)]
    assert [look.directories for look in looks] == [{"shared_dir": "/shared", "output_root": "/out"}] * 2


def test_the_filesystem_is_told_as_it_is(tmp_path: Path) -> None:
    seen = FileSpace().look({"shared_dir": str(tmp_path), "output_root": str(tmp_path / "later")})
    assert not isinstance(seen, Unavailable)
    assert set(seen) == {"shared_dir"}
    assert seen["shared_dir"].free_mib > 0
