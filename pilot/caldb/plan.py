"""Decisions about a node's calibration server. Pure: no I/O, no clock. Flags and figures: docs/facts/caldb.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional, Tuple

# The one account of a snapshot: SELECT only, no password; the socket stands in a directory of mode 0700.
ACCOUNT = "calib"
DATABASE = "calib"
# sun_path of Linux holds 108 bytes with the closing zero.
SOCKET_PATH_MAX_BYTES = 107
# The snapshot may take at most this share of the node's free memory: the rest is for payloads.
MEMORY_SHARE_MAX = 0.5
# Room beside the snapshot in the node-local directory: logs, Aria control files, sockets.
SPARE_BYTES = 32 * 1024 * 1024
LOG_CHARACTERS = 2000
# Jobs of a node ask for a few runs of 5 MB: they fit, and the server stays below 128 MiB.
QUERY_CACHE_MIB = 64
# More different runs than this push each other out: what is kept for nobody costs a fifth of the time.
QUERY_CACHE_RUNS_MAX = 12
# A node with less memory gives the cache this share of what is free, and not less than what a few jobs of one run need.
CACHE_SHARE = 1 / 64
QUERY_CACHE_LEAST_MIB = 8
# Two for each payload, so that one that opens a second connection refuses none to its neighbour, and some for others.
CONNECTIONS_OF_SLOT, CONNECTIONS_SPARE = 2, 16
CONNECTIONS_LEAST, BACK_LOG_LEAST = 80, 128


class KeeperPlan(NamedTuple):
    """What a keeper is to do. `directory` (0700) exists and is the keeper's own, with `users.lock` in it.

    `restarts`: how often a server that died or never answered is started again; `ready_s`: limit of one start.
    `runs`: how many different ones the node's jobs are known to ask for; `slots`: how many of them run at a time.
    `server` None: looked for on PATH and in the usual places; `own_server`: it travels inside the snapshot.
    """

    backend: str
    snapshot: str
    sha256: str
    probe_sql: str
    probe_expect: str
    access: str
    server: Optional[str]
    directory: str
    ready_s: float
    restarts: int
    own_server: bool = False
    runs: int = 0
    slots: int = 0


class Address(NamedTuple):
    """Where the server listens: a unix socket, or (port not None) 127.0.0.1."""

    socket: str
    port: Optional[int] = None


def server_argv(
    server: Sequence[str],
    share: Optional[str],
    directory: str,
    port: Optional[int],
    user: Optional[str],
    cache_mib: int = QUERY_CACHE_MIB,
    slots: int = 0,
) -> Tuple[str, ...]:
    """The measured command. `server`: its first words; `share` None: it knows its own; `user` only as root."""
    place = (f"--lc-messages-dir={share}", f"--character-sets-dir={share}/charsets") if share else ()
    connections = max(CONNECTIONS_LEAST, CONNECTIONS_OF_SLOT * slots + CONNECTIONS_SPARE)
    network = ("--skip-networking",) if port is None else ("--bind-address=127.0.0.1", f"--port={port}")
    return (
        *server,
        "--no-defaults",
        f"--datadir={directory}/dd",
        f"--socket={directory}/s.sock",
        f"--pid-file={directory}/mariadbd.pid",
        f"--tmpdir={directory}",
        f"--log-error={directory}/mariadbd.log",
        *place,
        *network,
        *((f"--user={user}",) if user is not None else ()),
        "--skip-innodb",
        "--default-storage-engine=Aria",
        "--read-only",
        "--event-scheduler=DISABLED",
        "--skip-name-resolve",
        "--host-cache-size=0",
        "--use-stat-tables=NEVER",
        "--performance-schema=0",
        "--skip-log-bin",
        f"--max-connections={connections}",
        f"--back-log={max(BACK_LOG_LEAST, connections)}",
        "--thread-cache-size=32",
        "--table-open-cache=400",
        "--key-buffer-size=16M",
        "--aria-pagecache-buffer-size=16M",
        "--aria-log-file-size=8M",
        f"--query-cache-type={int(cache_mib > 0)}",
        f"--query-cache-size={cache_mib}M",
        "--query-cache-limit=1M",
        "--local-infile=0",
    )


def query_cache_mib(available_bytes: Optional[int], runs: int = 0) -> int:
    """Size of the query cache on a node with so much free memory (None: not known), 0 where it would be of no use.

    `runs`: how many different ones its jobs are known to ask for.
    """
    if runs > QUERY_CACHE_RUNS_MAX:
        return 0
    if available_bytes is None:
        return QUERY_CACHE_MIB
    return max(QUERY_CACHE_LEAST_MIB, min(QUERY_CACHE_MIB, int(available_bytes * CACHE_SHARE) >> 20))


def option_file(address: Address) -> str:
    """Text of the `[client]` option file for payloads."""
    if address.port is None:
        where = f"socket={address.socket}"
    else:
        where = f"host=127.0.0.1\nport={address.port}\nprotocol=tcp"
    return f"[client]\nuser={ACCOUNT}\n{where}\n"


def payload_environment(backend: str, directory: str, address: Address) -> Mapping[str, str]:
    """What a payload that needs calibrations gets (docs/architecture/files.md, section 2)."""
    if backend == "sqlite":
        return {"CDB_SQLITE": sqlite_path(directory)}
    return {
        "CDBSERVER": "localhost" if address.port is None else f"127.0.0.1:{address.port}",
        "MYSQL_UNIX_PORT": address.socket,
        "CDB_OPTION_FILE": f"{directory}/client.cnf",
        "CDB_DATABASE": DATABASE,
    }


def copy_path(snapshot: str, number: int) -> str:
    """The file of copy `number`, counted from 0: the snapshot itself, then `<snapshot>.2` and so on."""
    return snapshot if number == 0 else f"{snapshot}.{number + 1}"


def sqlite_path(directory: str) -> str:
    """The node's copy of an SQLite snapshot."""
    return f"{directory}/calib.sqlite"


def check_space(snapshot_bytes: int, free_bytes: int, memory_bytes: Optional[int]) -> Optional[str]:
    """Why the snapshot does not fit on the node, None if it does.

    `free_bytes` of the local directory; `memory_bytes`: available memory if that directory is memory, else None.
    """
    if snapshot_bytes + SPARE_BYTES > free_bytes:
        return (
            f"snapshot needs {snapshot_bytes >> 20} MiB, the local directory has {free_bytes >> 20} MiB free"
        )
    if memory_bytes is not None and snapshot_bytes > MEMORY_SHARE_MAX * memory_bytes:
        return f"snapshot of {snapshot_bytes >> 20} MiB is over half of {memory_bytes >> 20} MiB available memory"
    return None


class Room(NamedTuple):
    """A directory of the node as it is now. `joined`: the batch job's server has its files there already."""

    path: str
    joined: bool
    writable: bool
    noexec: bool
    free_bytes: int


def choose_room(rooms: Sequence[Room], snapshot_bytes: int, executes: bool) -> str:
    """Where the server's files go: where they are, else the first that takes them, else the first (and its error)."""
    for room in rooms:
        if room.joined:
            return room.path
    for room in rooms:
        space = check_space(snapshot_bytes, room.free_bytes, None) is None
        if room.writable and space and not (executes and room.noexec):
            return room.path
    return rooms[0].path


def check_socket_path(path: str) -> Optional[str]:
    """Why no unix socket can have this path, None if it can."""
    length = len(path.encode())
    if length > SOCKET_PATH_MAX_BYTES:
        return (
            f"socket path has {length} bytes, at most {SOCKET_PATH_MAX_BYTES} are possible: "
            f"take a shorter node.local_dir ({path})"
        )
    return None


def check_probe(answer: Optional[str], expect: str) -> Optional[str]:
    """Why the answer to the probe is not the right one, None if it is."""
    if answer is None:
        return "the probe row is missing"
    if answer != expect:
        return f"the probe answered {answer[:100]!a}, expected {expect[:100]!a}"
    return None


def may_restart(deaths: int, restarts: int) -> bool:
    """Whether a server that died for the `deaths`-th time is started again."""
    return deaths <= restarts


def server_user(uid: int, parents: Sequence[Tuple[int, int]], nobody: Optional[int]) -> Optional[str]:
    """`--user` of the server. None when not root. As root `nobody`, or `root` where nobody cannot reach the directory.

    `parents`: (mode, owner) of every directory above the server's own, `nobody`: its uid, None if there is none.
    A server of root still has the SELECT-only account as its only one and listens in a directory of mode 0700.
    """
    if uid != 0:
        return None
    reachable = all(mode & (0o100 if owner == nobody else 0o001) for mode, owner in parents)
    return "nobody" if nobody is not None and reachable else "root"


# Top directory of a snapshot that holds a server: its loader, libraries, messages and character sets.
OWN_SERVER = "server"


def own_server_words(directory: str) -> Tuple[str, ...]:
    """How the server inside a snapshot that was unpacked into `directory` is started: by its own loader."""
    top = f"{directory}/{OWN_SERVER}"
    return f"{top}/loader", "--library-path", f"{top}/lib", f"{top}/mariadbd"


def check_member(name: str, is_file: bool, is_directory: bool) -> Optional[str]:
    """Why a member of a snapshot's tar is refused, None if it is fine: plain files below the data directory only."""
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        return f"snapshot holds a path outside its directory: {name[:100]!a}"
    if not (is_file or is_directory):
        return f"snapshot holds something else than files and directories: {name[:100]!a}"
    return None
