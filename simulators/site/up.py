"""`simsite up`: a PanDA server and a Torque server on loopback with real executables, until a signal.

While it runs it takes orders of its own user on a control socket (control.py).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from pilot.control import ControlSocket, Desk
from simulators.demo.parts import PartError, Parts
from simulators.panda.http import write_json
from simulators.panda.rules import PandaTimes
from simulators.site.control import PREFIX, carry_out, parse_request
from simulators.torque.control import ControlError, RunningServer, start_server

READY_S = 60.0
LOOK_S = 0.5
DEFAULT: dict[str, Any] = {"panda": {}, "torque": {"server_name": "sim", "nodes": 4, "slots": 4}}
# Times of the batch server that --speed shortens, with their defaults; walltimes stay: payloads take what they take.
_TORQUE_TIMES = {
    "scheduler_interval_s": 0.2,
    "keep_completed_s": 300.0,
    "start_delay_s": 0.0,
    "release_s": 0.0,
    "convex_delay_s": 0.0,
    "node_check_s": 0.0,
    "job_stat_s": 45.0,
}
# With --spread each component has a network of its own; nodes have 127.0.1.x in any case.
PANDA_ADDRESS, SPREAD_ADDRESS = "127.0.0.1", "127.0.2.1"
_LOCAL_PROFILE = Path(__file__).resolve().parents[2] / "pilot" / "sites" / "local.yaml"


class SiteFileError(Exception):
    """The site file is unusable; the text names file and key."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the user asked for. `speed`: how many times faster than real the servers' own times pass."""

    file: Path | None = None
    runtime: Path | None = None
    speed: float = 1.0
    spread: bool = False


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


def hasten(site: dict[str, Any], speed: float) -> dict[str, Any]:
    """The site with the servers' own times divided by `speed`. Pure."""
    panda = {item.name: item.default for item in fields(PandaTimes)} | site["panda"]
    torque = _TORQUE_TIMES | site["torque"]
    for section, names in ((panda, {item.name for item in fields(PandaTimes)}), (torque, set(_TORQUE_TIMES))):
        for name in names:
            if isinstance(section[name], int | float):
                section[name] = section[name] / speed
    return {**site, "panda": panda, "torque": torque}


def run_site(options: UpOptions) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; everything that was started is ended then."""
    stop = threading.Event()
    wake = threading.Event()

    def end(number: int, frame: Any) -> None:
        stop.set()
        wake.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        site = load_site(options.file)
    except SiteFileError as error:
        print(f"simsite: {error}", file=sys.stderr)
        return 2
    if options.speed != 1.0:
        site = hasten(site, options.speed)
    if options.runtime is not None:
        return _serve(site, options, options.runtime.resolve(), stop, wake)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as directory:
        return _serve(site, options, Path(directory), stop, wake)


def _serve(
    site: dict[str, Any], options: UpOptions, runtime: Path, stop: threading.Event, wake: threading.Event
) -> int:
    torque: RunningServer | None = None
    control: ControlSocket | None = None
    parts = Parts(runtime / "run.json", runtime, [], dict(os.environ))
    try:
        runtime.mkdir(parents=True, exist_ok=True)
        (runtime / "panda-times.json").write_text(json.dumps(site["panda"]))
        (runtime / "torque.json").write_text(
            json.dumps({"local_root": str(runtime / "nodes"), **site["torque"]})
        )
        ready = runtime / "panda-ready.json"
        ready.unlink(missing_ok=True)
        host = SPREAD_ADDRESS if options.spread else PANDA_ADDRESS
        argv = [sys.executable, "-m", "simulators.panda.http", "--ready", str(ready), "--host", host]
        panda = parts.start("panda", [*argv, "--config", str(runtime / "panda-times.json")])
        with open(runtime / "torque.log", "a") as log:
            torque = start_server(str(runtime / "torque.json"), str(runtime / "t"), log)
        parts.wait_for(panda, lambda: ready.exists() or stop.is_set(), READY_S)
        desk = Desk(parse_request)
        desk.wake = wake.set
        if not stop.is_set():
            facts = json.loads(ready.read_text())
            control = ControlSocket(runtime, desk)
            _announce(runtime, facts, torque.ready)
        while not stop.is_set():
            wake.wait(LOOK_S)
            wake.clear()
            for serial, orders in desk.take():
                done, said = carry_out(orders, str(runtime / "t"), facts["orders_url"])
                desk.tell(serial, done, said)
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
        if control is not None:
            control.close()
        if torque is not None:
            torque.stop()
        parts.end_all()
        (runtime / "site.json").unlink(missing_ok=True)
    return 0


def _announce(runtime: Path, panda: dict[str, Any], torque: dict[str, Any]) -> None:
    """Say how to use the site; `site.json` holds the same for programs, `pilot.yaml` is a configuration for it."""
    base = runtime / "pilot"
    pilot = runtime / "pilot.yaml"
    url = panda["url"]
    pilot.write_text(pilot_config(url, base, torque))
    facts = {
        "panda_url": url,
        "orders_url": panda["orders_url"],
        "bin": torque["bin"],
        "nodes": torque["nodes"],
        "outputs": str(base / "outputs"),
    }
    write_json(runtime / "site.json", facts)
    print(f"PanDA:  {url}  (legacy /server/panda, v1 /api/v1; monitor: {panda['orders_url']}/sim/monitor)")
    print(f"Torque: export PATH={torque['bin']}:$PATH   (qsub, qstat, qdel, pbsnodes, aprun)")
    print(f"pilot:  pilot run -c {pilot}   (the profile local, for this site)")
    print(f"files:  {runtime}; simsite jobs N, simsite fault NAME; end with Ctrl-C", flush=True)


def pilot_config(url: str, base: Path, torque: dict[str, Any]) -> str:
    """The profile `local` with this site's addresses; the batch commands by their paths."""
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or sys.executable
    text = _LOCAL_PROFILE.read_text().replace("@BASE@", str(base)).replace("@PYTHON@", python)
    config = yaml.safe_load(text)
    config["servers"][0]["url"] = url
    config["batch"]["server"] = torque["server_name"]
    config["batch"]["commands"] = {
        verb: os.path.join(torque["bin"], name)
        for verb, name in (("submit", "qsub"), ("list", "qstat"), ("cancel", "qdel"))
    }
    return yaml.safe_dump(config, sort_keys=False)
