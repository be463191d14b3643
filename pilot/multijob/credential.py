"""Until when the credentials last, and what follows: alarms, holds, copies for bundles. Pure.

The credential is read in a lane; here are only values. Nothing is fetched with one that is not usable, and no bundle
is planned or submitted that would outlive it, unless the site renews it by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pilot.multijob.actions import Action, DeliverCredential, LookAtCredential, WithdrawCredential
from pilot.multijob.memory import Memory
from pilot.multijob.model import Bundle, BundleState, CredentialRule, Limits
from pilot.ports import Credential

COPY = "credential"


def looks_due(memory: Memory, now_s: float, limits: Limits) -> Iterator[Action]:
    """Read each credential again when it is time."""
    for server, rule in limits.credentials.items():
        due_s = memory.credential_read_s.get(server, float("-inf")) + rule.look_every_s
        action = LookAtCredential(server)
        if now_s >= due_s and not memory.waiting(action.key, now_s):
            yield action


def note_credential(
    memory: Memory, server: str, found: Credential | str, utc: str, now_s: float, limits: Limits
) -> None:
    """What a reading told; `found` is a text where the credential is not usable. Raises and clears the alarm."""
    memory.credentials[server] = found
    memory.credential_read_s[server] = now_s
    rule = limits.credentials.get(server)
    reason = found if isinstance(found, str) else None
    if isinstance(found, Credential) and rule is not None:
        left_s = seconds_left(found, utc)
        if left_s < rule.warn_s:
            reason = f"{found.path} ended" if left_s <= 0 else f"{found.path} ends in {left_s / 3600:.1f} h"
    if reason is None:
        memory.clear_alarm(f"credential-{server}")
    else:
        memory.raise_alarm(f"credential-{server}", reason, now_s)


def seconds_left(credential: Credential, utc: str) -> float:
    """Until its end of life; negative after it."""
    return (credential.ends_at - datetime.fromisoformat(utc)).total_seconds()


def unusable_credential(memory: Memory, server: str, utc: str, limits: Limits) -> str | None:
    """Why nothing can be asked of this server now, None if it can (or needs no credential)."""
    if server not in limits.credentials:
        return None
    found = memory.credentials.get(server)
    if found is None:
        return f"the credential of {server} has not been read yet"
    if isinstance(found, str):
        return f"the credential of {server} is not usable: {found}"
    return f"the credential of {server} has ended" if seconds_left(found, utc) <= 0 else None


def outlives(memory: Memory, server: str, walltime_s: float, utc: str, limits: Limits) -> str | None:
    """Why a batch job of this walltime may not be submitted now, None if it may."""
    reason = unusable_credential(memory, server, utc, limits)
    if reason is not None or server not in limits.credentials:
        return reason
    found = memory.credentials[server]
    if limits.credentials[server].renewed or isinstance(found, str):
        return None
    left_s = seconds_left(found, utc)
    if left_s >= walltime_s:
        return None
    return f"the credential of {server} ends in {left_s / 3600:.1f} h, before a bundle of {walltime_s / 3600:.1f} h"


def bundle_rule(bundle: Bundle, limits: Limits) -> tuple[str, CredentialRule] | None:
    """Server and rule of a bundle whose payloads get a copy; None for others."""
    queue = limits.queues.get(bundle.queue)
    rule = limits.credentials.get(queue.server) if queue is not None else None
    return (queue.server, rule) if queue is not None and rule is not None and rule.variable else None


def copy_path(bundle_dir: str) -> str:
    """Where a bundle's copy lies."""
    return f"{bundle_dir}/{COPY}"


def decide_copy(
    memory: Memory, bundle: Bundle, bundle_dir: str, now_s: float, limits: Limits
) -> Iterator[Action]:
    """Keep an open bundle's copy as the file is; remove it when the bundle is over."""
    found = bundle_rule(bundle, limits)
    if found is None:
        return
    server, current = found[0], memory.credentials.get(found[0])
    action: Action
    if bundle.state is BundleState.OPEN and isinstance(current, Credential):
        if memory.delivered.get(bundle.bundle_id) != current.fingerprint:
            action = DeliverCredential(bundle.bundle_id, server, copy_path(bundle_dir), current.fingerprint)
            if not memory.waiting(action.key, now_s):
                yield action
    elif (
        bundle.state in (BundleState.CLOSED, BundleState.SETTLED) and bundle.bundle_id not in memory.withdrawn
    ):
        action = WithdrawCredential(bundle.bundle_id, server, copy_path(bundle_dir))
        if not memory.waiting(action.key, now_s):
            yield action


def copy_missing(memory: Memory, bundle: Bundle, limits: Limits) -> bool:
    """Whether a bundle that needs a copy has not been given one in this run."""
    return bundle_rule(bundle, limits) is not None and bundle.bundle_id not in memory.delivered


def note_copy(memory: Memory, action: DeliverCredential | WithdrawCredential) -> None:
    """A copy is in its place, or gone."""
    if isinstance(action, DeliverCredential):
        memory.delivered[action.bundle_id] = action.fingerprint
    else:
        memory.delivered.pop(action.bundle_id, None)
        memory.withdrawn.add(action.bundle_id)
