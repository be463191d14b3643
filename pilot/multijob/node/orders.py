"""What an agent asks of its host beside file operations, and the news it hears: values, no I/O.

`agent.Agent` yields orders and file operations and is sent their replies; `host.Host` carries them out with real
processes, the virtual world with pretended ones and the same agent. All of them block the agent while they last.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple, Union

from pilot.multijob.node.manifest import Job
from pilot.multijob.node.provision import Outcome
from pilot.multijob.node.setups import Made
from pilot.multijob.node.steps import Collected, PayloadEnd

# --- orders -----------------------------------------------------------------------------------------------------


class MakeLocal(NamedTuple):
    """Make the agent's own directory on the node. Replies None."""


class Probe(NamedTuple):
    """Can this node work at all: write and read below its directory, run the command. Replies why not, else None."""

    argv: Tuple[str, ...]
    limit_s: float


class Hear(NamedTuple):
    """Replies all news since the last time, in order; without any, waits for some until `until_s` (None: does not)."""

    until_s: Optional[float]


class Spawn(NamedTuple):
    """Start the payload in its own session and new work directory, or (`again`) its next step where the last one ran.

    Replies None, or its end if it cannot be started.

    Raises OSError if the work directory cannot be made: that is the node's fault, not the job's.
    """

    job: Job
    slot: int
    work: str
    caldb: Mapping[str, str]
    inputs: Tuple[Tuple[str, str], ...] = ()
    setup: Made = Made()
    again: bool = False


class RunSetup(NamedTuple):
    """Begin a set-up script in a clean shell; `SetupEnded` is its news. Replies None. Raises OSError."""

    script: str


class KillSetup(NamedTuple):
    """SIGKILL to a set-up script. Replies None."""

    script: str


class Terminate(NamedTuple):
    """SIGTERM to the payload in this slot. Replies None."""

    slot: int


class Kill(NamedTuple):
    """SIGKILL to everything of the payload in this slot. Replies None."""

    slot: int


class Sample(NamedTuple):
    """Replies (memory, output) of the payloads in these slots in MiB, by slot; one that has none is left out."""

    slots: Tuple[int, ...]


class Request(NamedTuple):
    """What is to be collected of an ended payload. `nonce` of the agent's start keeps temp names of agents apart."""

    directory: str
    job: Job
    work: str
    end: PayloadEnd
    place_outputs: bool
    place_log: bool
    nonce: str


class Gather(NamedTuple):
    """Begin to collect, beside everything else; `Gathered` is its news. Replies None.

    What takes no time (a few words on the streams, no files) is collected at once and is the reply.
    """

    slot: int
    request: Request


class LocalFree(NamedTuple):
    """Replies the MiB that may still be written below the agent's directory on the node."""


class StartKeeper(NamedTuple):
    """Start the keeper of the calibration server. Replies None."""


class KillKeeper(NamedTuple):
    """SIGKILL to the keeper. Replies None."""


class LetKeeperGo(NamedTuple):
    """The server is not needed any more: let its keeper stop it, wait for both for a bounded time. Replies None."""


class Sweep(NamedTuple):
    """End everything that was started and remove the local directories. Replies Swept."""


class Swept(NamedTuple):
    """Own processes that would not end; others of this user that began after the agent did and are none of its own.

    The others may be another bundle's, or escaped before the agent took over. They are counted, and so are those of
    them that the site lets an agent end.
    """

    left_behind: int
    foreign: int
    foreign_ended: int = 0


class Say(NamedTuple):
    """A word for people on standard error. Replies None."""

    text: str


# --- news -------------------------------------------------------------------------------------------------------


class AskedToEnd(NamedTuple):
    """The agent was sent SIGTERM (or SIGINT, SIGHUP)."""


class PayloadEnded(NamedTuple):
    """The payload in this slot has ended, with all that it had started."""

    slot: int
    end: PayloadEnd


class Gathered(NamedTuple):
    """What an ended payload left was read and placed."""

    slot: int
    collected: Collected


class ErrandDone(NamedTuple):
    """What became of the errand with this number (`supply.Errand`)."""

    number: int
    outcome: Outcome


class SetupEnded(NamedTuple):
    """A set-up script has ended: what it made of the environment, or why it failed and its last words."""

    script: str
    made: Made
    failure: Optional[str] = None
    log: str = ""


class KeeperSaid(NamedTuple):
    """One line of the keeper."""

    said: Dict[str, Any]


class KeeperEnded(NamedTuple):
    """The keeper has ended."""


News = Union[AskedToEnd, PayloadEnded, Gathered, ErrandDone, SetupEnded, KeeperSaid, KeeperEnded]
