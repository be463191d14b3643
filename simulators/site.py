"""`simsite up`: a PanDA server and a Torque server on loopback with real executables, until a signal."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from simulators.demo.parts import PartError, Parts
from simulators.panda.http import write_json
from simulators.torque.control import ControlError, RunningServer, start_server

READY_S = 60.0
DEFAULT: dict[str, Any] = {"panda": {}, "torque": {"server_name": "sim", "nodes": 4, "slots": 4}}


class SiteFileError(Exception):
    """The site file is unusable; the text names file and key."""


def load_site(path: Path | None) -> dict[str, Any]:
    """The site file's sections `panda` (times of the server, seconds) and `torque` (docs of the Torque simulator)."""
    if path is None:
        return DEFAULT
    try:
        site = json.loads(path.read_text())
    except OSError as error:
        raise SiteFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise SiteFileError(f"{path}: not JSON: {error}") from error
    if not isinstance(site, dict) or set(site) - {"panda", "torque"}:
        raise SiteFileError(f"{path}: expected an object with the keys panda and torque")
    return {**DEFAULT, **site}


def run_site(path: Path | None, runtime: Path | None) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; everything that was started is ended then."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        site = load_site(path)
    except SiteFileError as error:
        print(f"simsite: {error}", file=sys.stderr)
        return 2
    if runtime is not None:
        return _serve(site, runtime.resolve(), stop)
    with tempfile.TemporaryDirectory(prefix="simsite-") as directory:
        return _serve(site, Path(directory), stop)


def _serve(site: dict[str, Any], runtime: Path, stop: threading.Event) -> int:
    torque: RunningServer | None = None
    parts = Parts(runtime / "run.json", runtime, [], dict(os.environ))
    try:
        runtime.mkdir(parents=True, exist_ok=True)
        (runtime / "panda-times.json").write_text(json.dumps(site["panda"]))
        (runtime / "torque.json").write_text(
            json.dumps({"local_root": str(runtime / "nodes"), **site["torque"]})
        )
        ready = runtime / "panda-ready.json"
        argv = [sys.executable, "-m", "simulators.panda.http", "--ready", str(ready)]
        panda = parts.start("panda", [*argv, "--config", str(runtime / "panda-times.json")])
        with open(runtime / "torque.log", "a") as log:
            torque = start_server(str(runtime / "torque.json"), str(runtime / "t"), log)
        parts.wait_for(panda, lambda: ready.exists() or stop.is_set(), READY_S)
        if not stop.is_set():
            _announce(runtime, json.loads(ready.read_text())["url"], torque.ready)
        while not stop.wait(0.5):
            parts.check()
            if torque.process.poll() is not None:
                raise PartError(f"the Torque server ended early (log: {runtime / 'torque.log'})")
    except (PartError, ControlError) as error:
        print(f"simsite: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"simsite: {error.filename or runtime}: {error.strerror}", file=sys.stderr)
        return 1
    finally:
        if torque is not None:
            torque.stop()
        parts.end_all()
    return 0


def _announce(runtime: Path, url: str, torque: dict[str, Any]) -> None:
    """Say how to use the site; `site.json` holds the same for programs."""
    write_json(runtime / "site.json", {"panda_url": url, "bin": torque["bin"], "nodes": torque["nodes"]})
    print(f"PanDA:  {url}  (legacy /server/panda, v1 /api/v1; its table: {url}/sim/table)")
    print(f"Torque: export PATH={torque['bin']}:$PATH   (qsub, qstat, qdel, pbsnodes, aprun)")
    print(f"files:  {runtime}; end with Ctrl-C", flush=True)
