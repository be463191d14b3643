"""A real Slurm of Debian on loopback: two nodes of two slots, a munged of its own, everything in one directory."""

from __future__ import annotations

import getpass
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

SBIN = Path("/usr/sbin")
DAEMONS = {name: SBIN / name for name in ("munged", "slurmctld-wlm", "slurmd-wlm")}
MISSING = [name for name, path in DAEMONS.items() if not path.exists()]
# The wrapper is a script of perl; a simulator's qsub is not.
WRAPPER = Path("/usr/bin/qsub")
READY_S = 30.0

CONF = """\
ClusterName=wires
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={base}/run/munge.sock
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={ports[0]}
SlurmctldPidFile={base}/run/ctld.pid
SlurmdPidFile={base}/run/%n.pid
SlurmdSpoolDir={base}/spool.%n
StateSaveLocation={base}/state
SlurmctldLogFile={base}/ctld.log
SlurmdLogFile={base}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MinJobAge=300
EnforcePartLimits=ALL
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=normal Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


class SlurmSite:
    """Daemons in the foreground, each known by its process; `close` ends them and the batch jobs."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.environment = {
            "SLURM_CONF": str(base / "slurm.conf"),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(base),
        }
        self._stack = ExitStack()
        self.controller: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for name in ("run", "state", "spool.n1", "spool.n2"):
            (self.base / name).mkdir()
        key = self.base / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        ports = _free_ports(3)
        text = CONF.format(base=self.base, user=getpass.getuser(), ports=ports)
        (self.base / "slurm.conf").write_text(text)
        run = self.base / "run"
        munge = [str(DAEMONS["munged"]), "--foreground", "--force", "--num-threads=2", f"--key-file={key}"]
        munge += [f"--socket={run}/munge.sock", f"--pid-file={run}/munge.pid", f"--seed-file={run}/seed"]
        self._daemon("munge", munge)
        _wait("munged", lambda: (run / "munge.sock").exists())
        self.controller = self._daemon("ctld", [str(DAEMONS["slurmctld-wlm"]), "-D", "-c"])
        for node in ("n1", "n2"):
            self._daemon(node, [str(DAEMONS["slurmd-wlm"]), "-D", "-c", "-N", node])
        _wait("two idle nodes", lambda: self.ask("sinfo", "-h", "-o", "%D %t").strip() == "2 idle")

    def ask(self, *argv: str) -> str:
        done = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout

    def _daemon(self, name: str, argv: list[str]) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context(open(self.base / f"{name}.out", "ab"))
        process = subprocess.Popen(argv, env=self.environment, cwd=self.base, stdout=log, stderr=log)
        self._stack.callback(_end, process)
        return process

    def close(self) -> None:
        if self.controller is not None and self.controller.poll() is None:
            self.controller.send_signal(signal.SIGCONT)
            self.ask("scancel", "--user", getpass.getuser())
            deadline_s = time.monotonic() + 15
            while self.ask("squeue", "-h").strip() and time.monotonic() < deadline_s:
                time.sleep(0.1)
        self._stack.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [item.getsockname()[1] for item in sockets]


def _wait(what: str, holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + READY_S
    while not holds():
        assert time.monotonic() < deadline_s, f"no {what} within {READY_S:g} s"
        time.sleep(0.05)


def reason_to_skip() -> str | None:
    """Why no Slurm can be started here, None if one can."""
    there = not MISSING and WRAPPER.exists()
    return None if there else "Debian packages slurm-wlm, slurm-wlm-torque and munge are missing"
