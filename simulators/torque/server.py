"""The simulated Torque server: `python -m simulators.torque.server --config FILE.json --runtime DIR`.

One process with an event loop; it waits for what happens and for the model's next time, never in between. It
listens on a unix socket in the runtime directory, writes the commands into RUNTIME/bin, and when everything is up
RUNTIME/ready.json and one line on stdout. SIGTERM, SIGINT and SIGHUP end it and everything that it started.
"""

from __future__ import annotations

import argparse
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
from typing import Any

from simulators.torque import commands
from simulators.torque.executables import write_executables
from simulators.torque.machine import Places, SimulatedMachine
from simulators.torque.model import TorqueModel
from simulators.torque.nodetexts import node_state
from simulators.torque.request import Reply, Request
from simulators.torque.site import SiteError, TorqueSite, parse_site
from simulators.torque.sweep import become_subreaper, read_row
from simulators.torque.wire import Message, Peer, WireError, socket_path

# A command that does not read its answer for so long is dropped.
_SEND_LIMIT_S = 2.0
_SCRIPT_MAX_BYTES = 1024 * 1024
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Server:
    """Everything that a running server has open."""

    def __init__(self, site: TorqueSite, runtime: str) -> None:
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
        self._machine = SimulatedMachine(self._model, places, self.now, self._watch, self._log)
        self._places = places
        self._stopped_by: int | None = None

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
            for name in ("server.sock", "ready.json"):
                if os.path.exists(path := os.path.join(self._runtime, name)):
                    os.unlink(path)
            self._log("server_stopped", signal=self._stopped_by, strays=strays)
        return 0

    def _turn(self) -> None:
        """Do what is due, then wait for the next thing."""
        self._machine.carry_out()
        due = self._model.next_at()
        wait_s = None if due is None else max(0.0, due - self.now())
        for key, _ in self._selector.select(wait_s):
            # A callback may have closed what another one waits for.
            if self._selector.get_map().get(key.fd) is key:
                key.data()

    def _stop(self, number: int, frame: Any) -> None:
        self._stopped_by = number

    def _listen(self) -> socket.socket:
        path, directory = socket_path(self._runtime)
        try:
            if os.path.lexists(os.path.join(self._runtime, "server.sock")):
                os.unlink(os.path.join(self._runtime, "server.sock"))
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(path)
            listener.listen(256)
        finally:
            os.close(directory)
        return listener

    def _announce(self) -> None:
        """Write the commands and then ready.json, and say so."""
        write_executables(self._places.bin_dir, self._runtime, self._site.server_name)
        row = read_row(os.getpid())
        ready = {
            "pid": os.getpid(),
            "pid_start": row.start if row else None,
            "server_name": self._site.server_name,
            "socket": os.path.join(self._runtime, "server.sock"),
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
                    answer = self._answer(peer, uid, message, tuple(files))
                finally:
                    for fd in files:
                        os.close(fd)
                if answer is not None and message.get("plain"):
                    peer.socket.sendall(_plain(answer))
                elif answer is not None:
                    peer.send(answer)
        except (WireError, OSError, KeyError, TypeError, ValueError) as error:
            self._log("command_dropped", reason=f"{type(error).__name__}: {error}"[:200])
            messages = None
        if messages is None:
            self._watch(peer, None)
            self._machine.applications.aprun_gone(peer)
            peer.close()

    def _answer(self, peer: Peer, uid: int, message: Message, files: tuple[int, ...]) -> Message | None:
        verb = message["verb"]
        if verb == "forward":
            self._machine.applications.forward(peer, int(message["signal"]))
            return None
        if verb in _CONTROL:
            return _CONTROL[verb](self, message)
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

    # --- orders of whoever runs the site ---------------------------------------------------------------------------

    def _kill_node(self, message: Message) -> Message:
        number = self._site.node_number(message["node"])
        if number is None or not self._model.nodes[number].up:
            return {"error": f"no node {message['node']!r} that is up"}
        return {"processes": self._machine.kill_node(number)}

    def _requeue(self, message: Message) -> Message:
        no = self._model.requeue(self.now(), message["batch_id"])
        return {"error": no.text} if no is not None else {}

    def _list_nodes(self, message: Message) -> Message:
        rows = [
            {
                "name": self._site.node_name(node.number),
                "address": self._site.node_address(node.number),
                "state": node_state(node, self._site, self.now()),
                "jobs": sorted(node.jobs),
            }
            for node in self._model.nodes.values()
        ]
        return {"nodes": rows}


_CONTROL: dict[str, Callable[[Server, Message], Message]] = {
    "kill_node": Server._kill_node,
    "requeue": Server._requeue,
    "list_nodes": Server._list_nodes,
}


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


def main(argv: list[str] | None = None) -> int:
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
        return Server(site, runtime).run()
    except (OSError, ValueError) as error:
        print(f"simulated torque server in {runtime}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
