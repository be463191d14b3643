"""Jobs that are at work, kept small: 150,000 of them are known at once, and their texts are hardly looked at. Pure.

The jobs of a task differ in a few numbers: each is deflated against the first one's text, 700 bytes become 40.
"""

from __future__ import annotations

import json
import zlib
from hashlib import blake2b

from pilot.ports import Job, PandaId

# A window that holds any usual text twice; a larger one costs more to set up than a text takes.
WINDOW_BITS, MEMORY_LEVEL = -12, 4
# zlib looks no further back than its window for what it knows beforehand.
BASE_MAX = 4096 - 262


def render_base(job: Job) -> bytes:
    """What the jobs of this one's task are deflated against."""
    return _text(job)[:BASE_MAX]


def keep(job: Job, base: bytes) -> bytes:
    """The small form of a job's text; `base` is shared by those of one task."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, WINDOW_BITS, MEMORY_LEVEL, zlib.Z_DEFAULT_STRATEGY, base)
    return deflate.compress(_text(job)) + deflate.flush()


def unfold(panda_id: PandaId, attempt_nr: int, kept: bytes, base: bytes) -> Job:
    """The job as it was, of its numbers and what `keep` made of its text."""
    inflate = zlib.decompressobj(WINDOW_BITS, base)
    texts, outputs, rest = json.loads(inflate.decompress(kept) + inflate.flush())
    queue, name, kind, parameters = texts
    log_lfn, priority, label, walltime_s, cores = rest
    files = tuple(outputs), log_lfn
    return Job(
        panda_id, attempt_nr, queue, name, kind, parameters, *files, priority, label, walltime_s, cores
    )


def short_work(work: str | None) -> bytes | None:
    """What stands for a work key in memory: no two keys have the same in the life of the universe."""
    return None if work is None else blake2b(work.encode(), digest_size=14).digest()


def _text(job: Job) -> bytes:
    # The order of `Job` after its numbers. Surrogates, which UTF-8 has not, are escaped by JSON.
    texts = (job.panda_queue, job.job_name, job.transformation, job.job_pars)
    rest = (job.log_lfn, job.priority, job.prod_source_label, job.max_walltime_s, job.core_count)
    return json.dumps((texts, job.outputs, rest), separators=(",", ":")).encode()
