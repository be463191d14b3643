"""A process that takes the lease and appends until it is killed; prints the number of each durable commit."""

from __future__ import annotations

import sys
from pathlib import Path

from pilot.journal import FileStore
from pilot.lease import Lease, take_lease
from pilot.ports import Appended


def main() -> None:
    """argv: state directory, number of the first record, records per commit."""
    state_dir, number, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    lease = take_lease(state_dir)
    if not isinstance(lease, Lease):
        sys.exit(lease.reason)
    store = FileStore(state_dir, lease.epoch, segment_max_bytes=20_000)
    while True:
        records = [{"e": "x", "n": number + at, "text": "y" * 100} for at in range(size)]
        appended = store.append(number + size, records)
        if not isinstance(appended, Appended) or appended.highest_epoch != lease.epoch:
            sys.exit(str(appended))
        number += size
        print(number, flush=True)


if __name__ == "__main__":
    main()
