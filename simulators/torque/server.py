"""The simulated Torque server: `python -m simulators.torque.server --config FILE.json --runtime DIR`.

One process with an event loop; it waits for what happens and for the model's next time, never in between. It
listens on a unix socket in the runtime directory (under a second name for users' commands, which an outage removes),
writes the commands into RUNTIME/bin, and when everything is up RUNTIME/ready.json and one line on stdout. SIGTERM,
SIGINT and SIGHUP end it and everything that it started.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pwd
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from simulators.torque import commands
from simulators.torque.executables import write_executables
from simulators.torque.machine import Places, SimulatedMachine
from simulators.torque.model import TorqueModel
from simulators.torque.request import Reply, Request
from simulators.torque.site import SiteError, TorqueSite, parse_site
from simulators.torque.steering import ORDERS, Machinery, Steering
from simulators.torque.sweep import become_subreaper, read_row
from simulators.torque.troubles import Fate, Troubles
from simulators.torque.wire import MACHINE, SERVER, Message, Peer, WireError, socket_path

# A command that does not read its answer for so long is dropped.
_SEND_LIMIT_S = 2.0
# The kernel counts a wait in milliseconds of 31 bits.
_WAIT_MAX_S = 86400.0
_SCRIPT_MAX_BYTES = 1024 * 1024
# Commands of users, which a trouble can hit; aprun belongs to the machine.
_VERBS = frozenset(commands.VERBS) | {"qsub"}
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class ServedMachine(Machinery, Protocol):
    """What runs the batch jobs of a server: real processes, or pretended ones (simulators/load)."""

    @property
    def applications(self) -> ServedApplications:
        """The applications of batch jobs."""

    def start(self) -> None:
        """Boot every node."""

    def stop(self) -> int:
        """End everything; returns how many strays there were."""

    def next_at(self) -> float | None:
        """When it has something to do by itself."""

    def carry_out(self) -> None:
        """Do what the model wants done by now."""


class ServedApplications(Protocol):
    """What aprun asks for."""

    def start(self, command: Peer, request: Request, umask: int, files: tuple[int, ...]) -> Reply | None:
        """Start one, or say why not."""

    def forward(self, command: Peer, number: int) -> None:
        """A signal for one."""

    def aprun_gone(self, command: Peer) -> None:
        """The command that waits for one has ended."""


MakeMachine = Callable[
    [
        TorqueModel,
        Places,
        Callable[[], float],
        Callable[[Peer, Callable[[], None] | None], None],
        Callable[..., None],
    ],
    ServedMachine,
]


class Server:
    """Everything that a running server has open."""

    def __init__(self, site: TorqueSite, runtime: str, make_machine: MakeMachine) -> None:
        self._site, self._runtime = site, runtime
        self._epoch_s = time.time() - time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._events = os.open(
            os.path.join(runtime, "events.jsonl"),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC,
            0o600,
        )
        self._model = TorqueModel(site)
        bin_dir = os.path.join(runtime, "bin")
        path = f"{bin_dir}:{os.environ.get('PATH', os.defpath)}"
        local_root = os.path.abspath(site.local_root or os.path.join(runtime, "nodes"))
        places = Places(runtime, local_root, bin_dir, path)
        self._machine = make_machine(self._model, places, self.now, self._watch, self._log)
        self._places = places
        self._stopped_by: int | None = None
        self._troubles = Troubles()
        self._steering = Steering(
            site,
            self._model,
            self._machine,
            self._troubles,
            self.now,
            self._log,
            self._leave,
            self._come_back,
        )
        # Commands that hang: who waits, as whom, for what.
        self._held: list[tuple[Peer, int, Message]] = []

    def now(self) -> float:
        """Epoch seconds that never go back."""
        return self._epoch_s + time.monotonic()

    def run(self) -> int:
        """Serve until a signal; returns the exit code."""
        wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        listener = self._listen()
        try:
            self._machine.start()
            self._selector.register(wake, selectors.EVENT_READ, lambda: os.read(wake, 4096))
            self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
            self._announce()
            while self._stopped_by is None:
                self._turn()
        finally:
            listener.close()
            strays = self._machine.stop()
            for name in (SERVER, MACHINE, "ready.json"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._runtime, name))
            self._log("server_stopped", signal=self._stopped_by, strays=strays)
        return 0

    def _turn(self) -> None:
        """Do what is due, then wait for the next thing. While the server is away nothing starts and nothing ends."""
        now = self.now()
        self._end_troubles(now)
        ends = [self._troubles.next_at(now)]
        if self._troubles.away_until is None:
            self._machine.carry_out()
            ends += [self._model.next_at(), self._machine.next_at()]
        due = min((at for at in ends if at is not None), default=None)
        wait_s = None if due is None else min(max(0.0, due - self.now()), _WAIT_MAX_S)
        for key, _ in self._selector.select(wait_s):
            # A callback may have closed what another one waits for.
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def _stop(self, number: int, frame: Any) -> None:
        self._stopped_by = number

    def _listen(self) -> socket.socket:
        for name in (SERVER, MACHINE):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._runtime, name))
        path, directory = socket_path(self._runtime, MACHINE)
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(path)
            listener.listen(256)
        finally:
            os.close(directory)
        os.symlink(MACHINE, os.path.join(self._runtime, SERVER))
        return listener

    def _announce(self) -> None:
        """Write the commands and then ready.json, and say so."""
        write_executables(self._places.bin_dir, self._runtime, self._site.server_name)
        row = read_row(os.getpid())
        ready = {
            "pid": os.getpid(),
            "pid_start": row.start if row else None,
            "server_name": self._site.server_name,
            "socket": os.path.join(self._runtime, SERVER),
            "bin": self._places.bin_dir,
            "local_root": self._places.local_root,
            "nodes": [self._site.node_name(number) for number in self._model.nodes],
        }
        self._log("server_started", **ready)
        path = os.path.join(self._runtime, "ready.json")
        with open(f"{path}.new", "w") as file:
            json.dump(ready, file)
        os.rename(f"{path}.new", path)
        try:
            print(json.dumps(ready), flush=True)
        except BrokenPipeError:
            pass  # whoever started us does not read: ready.json says the same

    def _log(self, event: str, **fields: Any) -> None:
        now = self.now()
        utc = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        row = {"utc": utc, "t": round(now, 6), "event": event, **fields}
        os.write(self._events, json.dumps(row).encode() + b"\n")

    # --- commands -------------------------------------------------------------------------------------------------

    def _watch(self, peer: Peer, callback: Callable[[], None] | None) -> None:
        if callback is not None:
            self._selector.register(peer.fileno(), selectors.EVENT_READ, callback)
        elif peer.fileno() in self._selector.get_map():
            self._selector.unregister(peer.fileno())

    def _accept(self, listener: socket.socket) -> None:
        end, _ = listener.accept()
        end.settimeout(_SEND_LIMIT_S)
        peer = Peer(end)
        self._watch(peer, lambda: self._hear(peer, _uid(end)))

    def _hear(self, peer: Peer, uid: int) -> None:
        try:
            messages = peer.receive()
            for message, files in messages or ():
                try:
                    self._work(peer, uid, message, tuple(files))
                finally:
                    for fd in files:
                        os.close(fd)
        except (WireError, OSError, KeyError, TypeError, ValueError) as error:
            self._log("command_dropped", reason=f"{type(error).__name__}: {error}"[:200])
            messages = None
        if messages is None:
            self._watch(peer, None)
            self._machine.applications.aprun_gone(peer)
            peer.close()

    def _work(self, peer: Peer, uid: int, message: Message, files: tuple[int, ...]) -> None:
        """One message and its answer, unless a trouble keeps one of them."""
        verb = message["verb"]
        fate = Fate.ANSWERED
        if verb in _VERBS:
            fate = self._troubles.fate(verb, self.now())
            self._steering.asked[verb] = self._steering.asked.get(verb, 0) + 1
        if fate is Fate.HELD:
            self._held.append((peer, uid, message))
            self._log("command_held", verb=verb)
            return
        answer = None if fate is Fate.REFUSED else self._answer(peer, uid, message, files)
        if fate is Fate.LOST and answer is not None and "want" in answer:
            self._troubles.lose(verb, 1)  # this question is answered; it is the next answer that gets lost
            fate = Fate.ANSWERED
        if fate in (Fate.LOST, Fate.REFUSED):
            self._log("answer_lost", verb=verb, worked=fate is Fate.LOST)
            peer.socket.shutdown(socket.SHUT_RDWR)
        elif answer is not None and message.get("plain"):
            peer.socket.sendall(_plain(answer))
        elif answer is not None:
            peer.send(answer)

    def _end_troubles(self, now: float) -> None:
        """Come back from an outage whose time is over; work the commands that no trouble holds any more."""
        troubles = self._troubles
        if troubles.away_until is not None and troubles.away_until <= now:
            self._come_back(now)
        held, self._held = self._held, []
        for peer, uid, message in held:
            if troubles.fate(message["verb"], now) is Fate.HELD:
                self._held.append((peer, uid, message))
                continue
            # The command may have given up: what it wanted happens all the same.
            with contextlib.suppress(OSError):
                self._work(peer, uid, message, ())

    def _leave(self) -> None:
        os.unlink(os.path.join(self._runtime, SERVER))

    def _come_back(self, now: float) -> None:
        self._troubles.away_until = None
        self._model.server_restarted(now)
        os.symlink(MACHINE, os.path.join(self._runtime, SERVER))
        self._log("server_back")

    def _answer(self, peer: Peer, uid: int, message: Message, files: tuple[int, ...]) -> Message | None:
        verb = message["verb"]
        if verb == "forward":
            self._machine.applications.forward(peer, int(message["signal"]))
            return None
        if verb in ORDERS:
            return ORDERS[verb](self._steering, message)
        request = Request(
            words=tuple(message["words"]),
            user=_user(uid),
            uid=uid,
            cwd=message["cwd"],
            host=self._site.server_name,
            environment=message["environment"],
        )
        if verb == "aprun":
            reply = self._machine.applications.start(peer, request, int(message["umask"]), files)
        elif verb == "qsub":
            reply = self._submit(request, message.get("stdin"))
        else:
            reply = commands.answer(self._model, verb, request, self.now())
        if reply is None:
            return None
        if reply.want:
            return {"want": reply.want}
        return {"stdout": reply.stdout, "stderr": reply.stderr, "exit_code": reply.exit_code}

    def _submit(self, request: Request, stdin: str | None) -> Reply | None:
        path = commands.script_wanted(self._model, request)
        if isinstance(path, Reply):
            return path
        if path is None and stdin is None:
            return Reply(want="stdin")
        if path is not None:
            try:
                with open(
                    os.path.join(request.cwd, path), encoding="utf-8", errors="surrogateescape"
                ) as file:
                    stdin = file.read(_SCRIPT_MAX_BYTES)
            except OSError as error:
                return commands.unreadable(path, os.strerror(error.errno or 0))
        reply = commands.answer(self._model, "qsub", request, self.now(), stdin)
        batch_id = reply.stdout.strip()
        name = self._model.jobs[batch_id].submission.name if batch_id in self._model.jobs else None
        self._log(
            "submitted", batch_id=batch_id, name=name, exit_code=reply.exit_code, said=reply.stderr[:200]
        )
        return reply


def _plain(answer: Message) -> bytes:
    """The answer for a command that has no JSON reader (client.py): a line of four words, then both texts."""
    texts = (str(answer.get(name, "")) for name in ("stdout", "stderr"))
    stdout, stderr = (text.encode("utf-8", "surrogateescape") for text in texts)
    head = f"{len(stdout)} {len(stderr)} {answer.get('exit_code', 0)} {answer.get('want', '-')}\n"
    return head.encode() + stdout + stderr


def _uid(end: socket.socket) -> int:
    """Who is at the other end of a unix socket."""
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def main(argv: list[str] | None = None, make_machine: MakeMachine = SimulatedMachine) -> int:
    """Exit codes: 0 ended by a signal, 1 cannot run here, 2 bad config or usage."""
    parser = argparse.ArgumentParser(prog="simulators.torque.server", description=__doc__)
    parser.add_argument("--config", required=True, help="site as JSON (simulators/torque/site.py)")
    parser.add_argument(
        "--runtime", required=True, help="directory for socket, commands, spool and events; made if missing"
    )
    options = parser.parse_args(argv)
    runtime = os.path.abspath(options.runtime)
    try:
        with open(options.config, encoding="utf-8") as file:
            site = parse_site(file.read(), options.config)
        if not site.cray:
            raise SiteError(f"{options.config}: cray: only true is served by processes; found false")
    except (SiteError, OSError, UnicodeDecodeError) as error:
        print(error, file=sys.stderr)
        return 2
    try:
        os.makedirs(runtime, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(runtime, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{runtime}: another server runs there", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{runtime}: {error.strerror}", file=sys.stderr)
        return 1
    become_subreaper()
    try:
        return Server(site, runtime, make_machine).run()
    except (OSError, ValueError) as error:
        print(f"simulated torque server in {runtime}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
