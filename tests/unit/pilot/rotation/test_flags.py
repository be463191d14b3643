"""Batch flags that qsub refuses: the next round goes without them, a person is told, and they are tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rig import Rig, Site, make_job, make_limits

from pilot.multijob import actions as a
from pilot.ports import BatchRequest, Refused


class Strict(Site):
    """A site whose qsub refuses scripts with flags while `permits` is false."""

    def __init__(self, jobs: list[Any]) -> None:
        super().__init__(jobs)
        self.texts: dict[str, str] = {}
        self.taken: list[str] = []
        self.permits = False

    def respond(self, action: Any) -> Any:
        if isinstance(action, a.PrepareBundle):
            self.texts |= {f"{action.files.bundle_id}.{k}": text for k, text in action.files.scripts.items()}
        if isinstance(action, a.AddScript):
            self.texts[f"{action.bundle_id}.{action.number}"] = action.text
        if isinstance(action, a.SubmitBatchJob):
            if "flags=commtransparent" in self.texts[action.name] and not self.permits:
                return Refused("15046", "Resource flags not permitted")
            self.taken.append(self.texts[action.name])
        return super().respond(action)


def directives(request: BatchRequest) -> str:
    return f"#PBS -l flags={request.flags}\n" if request.flags else "#PBS\n"


def test_a_refused_flag_is_left_out_of_the_next_round_with_an_alarm_and_tried_again() -> None:
    limits = make_limits()
    queue = replace(limits.queues["long"], fill_wait_s=0.0)
    site_spec = replace(limits.site, flags="commtransparent", directives=directives)
    rig = Rig(replace(limits, site=site_spec, queues={"long": queue}))
    site = Strict([make_job(number) for number in range(1, 30)])
    rig.run(site.respond, 12, 30.0)
    assert site.taken and not any("flags" in text for text in site.taken)
    alarm = rig.memory.alarms["batch-flags-refused"]
    assert "flags=commtransparent" in alarm.reason and "not permitted" in alarm.reason
    site.permits = True
    for batch_id in list(site.batch):
        site.end(batch_id)
    before = len(site.taken)
    for _ in range(200):
        rig.run(site.respond, 1, 30.0)
        if any("flags=commtransparent" in text for text in site.taken[before:]):
            break
    assert any("flags=commtransparent" in text for text in site.taken[before:])
    rig.tick(0.0)
    assert "batch-flags-refused" not in rig.memory.alarms


def test_a_refusal_without_flags_is_no_matter_of_flags() -> None:
    rig, site = Rig(), Site([make_job(number) for number in range(1, 30)])
    refusals = [Refused("15007", "busy")]

    def respond(action: Any) -> Any:
        if isinstance(action, a.SubmitBatchJob) and refusals:
            return refusals.pop()
        return site.respond(action)

    rig.run(respond, 12, 30.0)
    assert site.batch and "batch-flags-refused" not in rig.memory.alarms
