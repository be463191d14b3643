"""Which pilots live, and which of them wait in the batch system. Pure."""

from __future__ import annotations

from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, BundleState, RoundState, State
from pilot.ports import BatchState


def live_bundles(state: State, queue: str) -> list[Bundle]:
    """Pilots of a queue that live: their batch job is not over."""
    return [bundle for bundle in state.bundles.values() if bundle.queue == queue and is_live(bundle)]


def is_live(bundle: Bundle) -> bool:
    """Whether the bundle still has, or will have, a batch job."""
    if bundle.state is BundleState.PLANNED:
        return True
    current = bundle.current
    return bundle.state is BundleState.OPEN and not (current is not None and current.batch_job_over)


def is_queued(memory: Memory, bundle: Bundle) -> bool:
    """Whether a live bundle's batch job has not been seen to start."""
    current = bundle.current
    if current is None or current.state is not RoundState.CLAIMED:
        seen = [memory.seen_live.get(batch_id) for batch_id in current.owners] if current else []
        return not any(job is not None and job.state is BatchState.RUNNING for job in seen)
    return False
