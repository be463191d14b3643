"""The captured sessions played again on the model, in their order: what each captured command gives here.

Only the model's own inputs are used: commands, starts and ends of scripts, deaths of nodes, time. Submissions and
orders that the captured session gave without a case are `hidden` lines.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from torque_cases import SCRIPTS, load

from simulators.torque import client, commands
from simulators.torque.model import TorqueModel
from simulators.torque.request import Reply, Request
from simulators.torque.site import QueueSpec, TorqueSite

T0 = 1795300885.0  # Sat Nov 21 22:41:25 2026
CLUSTER = TorqueSite(
    server_name="bw",
    nodes=16,
    slots=32,
    cray=False,
    first_sequence=8400001,
    scheduler_interval_s=1.0,
    start_delay_s=1.0,
    refuse_root=True,
    node_check_s=150.0,
    queues={
        "debug": QueueSpec(walltime_max_s=1800),
        "high": QueueSpec(priority=100),
        "low": QueueSpec(),
        "normal": QueueSpec(nodes_default="1"),
    },
)
CRAY = TorqueSite(
    server_name="bw",
    nodes=4700,
    slots=32,
    features=(),
    feature_nodes={"xe": (101, 4700)},
    first_sequence=8400001,
    scheduler_interval_s=1.0,
    start_delay_s=1.0,
    login_nodes=2,
    queues=CLUSTER.queues,
)
ENVIRONMENT = {
    "HOME": "/home/alice",
    "LOGNAME": "alice",
    "PATH": "/opt/torque/bin:/opt/torque/sbin:/usr/bin:/bin:/usr/sbin",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}
QUIET = "\nreal\t0m0.000s\nuser\t0m0.000s\nsys\t0m0.000s\n"


@dataclass
class Session:
    """A model with a clock, and the replies so far by case."""

    system: str
    site: TorqueSite
    now: float = T0

    def __post_init__(self) -> None:
        self.model = TorqueModel(self.site)
        self.model.made_at = self.now
        self.cases = load(self.system)
        self.replies: dict[str, Reply] = {}

    # --- what a session consists of ---------------------------------------------------------------------------

    def case(self, *names: str, user: str = "alice", uid: int = 1000) -> None:
        """Give the command of a case; `name` may be its number."""
        for name in names:
            full = next(case for case in self.cases if case == name or case.startswith(f"{name}_"))
            self.replies[full] = self.shell(self.cases[full].cmd, user, uid)

    def wait(self, seconds: float) -> None:
        """Time passes; scripts that start get session ids."""
        self.now += seconds
        self.model.advance(self.now)

    def end(self, sequence: str, exit_status: int) -> None:
        """The script of a batch job ends by itself, or because it was told to."""
        self.model.job_ended(self.now, f"{sequence}.bw", exit_status)
        self.model.advance(self.now)

    def set_queue(self, name: str, **changes: object) -> None:
        """An operator changes a queue (qmgr)."""
        queues = dict(self.model.site.queues)
        queues[name] = queues[name].model_copy(update=changes)
        self.model.site = self.model.site.model_copy(update={"queues": queues})
        self.model.wake(self.now)

    def shell(self, line: str, user: str = "alice", uid: int = 1000) -> Reply:
        """A line as the captured session typed it: a command, what the shell does around it, nothing else."""
        while "$(" in line:
            head, _, rest = line.rpartition("$(")
            inner, _, tail = rest.partition(")")
            line = head + self.run(inner, user, uid).stdout.strip().replace("\n", " ") + tail
        if line.startswith("echo "):
            text, _, command = line.partition(" | ")
            return self.run(command, user, uid, stdin=shlex.split(text)[1] + "\n")
        command, pipe, filters = line.replace(" 2>&1", "").partition(" | ")
        reply = self.run(command, user, uid)
        if not pipe:
            return reply
        lines = reply.stdout.splitlines(keepends=True)
        for words in map(shlex.split, filters.split(" | ")):
            if words[0] == "tail":
                lines = lines[int(words[1]) :]
            else:
                wanted = words[-1].split("|")
                lines = [text for text in lines if any(word in text for word in wanted)]
        return Reply("".join(lines), reply.stderr, 0 if lines else 1)

    def run(self, line: str, user: str = "alice", uid: int = 1000, stdin: str = "") -> Reply:
        verb, *words = shlex.split(line)
        cwd = "/home/alice" if user == "alice" else "/tmp"
        environment = ENVIRONMENT if user == "alice" else {}
        request = Request(tuple(words), user, uid, cwd, "bw", environment)
        script = None
        if verb == "qsub":
            wanted = commands.script_wanted(self.model, request)
            if isinstance(wanted, Reply):
                return wanted
            script = SCRIPTS.get(wanted) if wanted else stdin
            if script is None:
                return commands.unreadable(wanted or "", "No such file or directory")
        reply = commands.answer(self.model, verb, request, self.now, script)
        self.model.advance(self.now)
        return reply

    def down(self, name: str, text: str, exit_code: int) -> None:
        """A command that found nobody, under `time`."""
        full = next(case for case in self.cases if case.startswith(f"{name}_"))
        self.replies[full] = Reply(stderr=text + QUIET, exit_code=exit_code)


def cluster() -> dict[str, Reply]:
    """The session of torque-6.1.3."""
    s = Session("torque-6.1.3", CLUSTER)
    s.case("001")
    s.wait(1)
    s.case("002", "003", "004", "005")
    s.model.job_started("8400001.bw", 30261)
    s.wait(15.171395)
    s.end("8400001", 3)
    s.case("006", "007", "008")
    s.wait(3)
    s.case("009", "010")
    s.wait(2)
    s.wait(2)
    s.case("011", "012", "013", "014", "015", "016", "017", "018", "019", "020", "021")
    s.case("022", "023", "024", "025", "026", "027", "028", "029")
    s.model.job_started("8400002.bw", 30668)
    errors(s)
    orders(s)
    arrays(s)
    limits(s)
    outages(s)
    start_failures(s)
    empty_server(s)
    return s.replies


def errors(s: Session) -> None:
    """Refusals, and orders for the three jobs."""
    s.case("101", "102", "103", "104", "105", "106", "107", "108", "109", "110", "111", "112")
    s.case("113", uid=0)
    s.case(
        "114",
        "115",
        "116",
        "117",
        "118",
        "119",
        "120",
        "121",
        "122",
        "123",
        "124",
        "125",
        "126",
        "127",
        "128",
    )
    s.wait(1)
    s.case("129", "130", "131", "132", "133", "134", "135", "136", "137", "138", "139", "140")
    s.case("141", "142", "143", "144")


def orders(s: Session) -> None:
    """qdel of a running job, and the jobs that show every way to end."""
    s.wait(20)
    s.case("200", "201")
    s.wait(0.4)
    s.end("8400002", 143)
    s.case("202")
    s.wait(5)
    s.case("203")
    s.wait(1)
    for sequence in ("8400014", "8400015", "8400016"):
        s.end(sequence, 0)
    s.run("qsub trap.pbs")
    s.run("qsub notrap.pbs")
    s.wait(50)
    for sequence in ("8400017", "8400018"):
        s.run(f"qdel {sequence}")
    s.wait(0.1)
    endings = [("rc0", 0), ("rc1", 1), ("rc3", 3), ("rc255", 255)]
    for name, _ in endings:
        s.run(f"qsub -N x_{name} -v MODE=rc,RC={name[2:]} kill.pbs")
    s.wait(2)
    for sequence, (_, status) in enumerate(endings, 8400019):
        s.end(str(sequence), status)
    signals = [("kill9", 137), ("term", 143), ("segv", 139)]
    for name, _ in signals:
        s.run(f"qsub -N x_{name} -v MODE={name} kill.pbs")
    s.wait(2)
    for sequence, (_, status) in enumerate(signals, 8400023):
        s.end(str(sequence), status)
    s.run("qsub -N x_child9 -v MODE=child9 kill.pbs")
    s.run("qsub wall.pbs")
    s.wait(2)
    s.end("8400026", 137)
    s.run("qsub -N badshell badshell.pbs")
    s.run("qsub -N badS -S /nosuch/sh small.pbs")
    s.run("qsub -N baddir -o /nosuch/dir/out small.pbs")
    s.wait(2)
    s.end("8400028", 127)
    s.end("8400029", 254)
    s.wait(5)
    s.end("8400027", 143)
    s.case("210", "212")
    s.wait(40)
    for sequence in ("8400017", "8400018"):
        s.end(sequence, 143)
    s.end("8400030", 0)
    s.model.output_undelivered("8400030.bw")


def arrays(s: Session) -> None:
    s.case("220", "221")
    s.wait(2)
    s.case("222", "223", "224", "225", "226", "227", "228", "229")
    for sequence in ("8400031[0]", "8400031[1]", "8400031[2]", "8400031[3]", "8400031[4]", "8400032[1]"):
        s.end(sequence, 0)
    s.wait(2)
    s.end("8400032[2]", 0)
    s.end("8400032[3]", 0)
    s.case("230", "231", "232", "233", "234")


def limits(s: Session) -> None:
    s.set_queue("high", user_jobs_max=2)
    s.set_queue("low", jobs_max=1)
    s.case("300", "301", "302", "303", "304")
    s.set_queue("debug", enabled=False)
    s.case("305")
    s.set_queue("debug", enabled=True, started=False)
    s.case("306")
    s.set_queue("debug", nodes_max=4)
    s.case("307")
    s.set_queue("debug", users=("root",))
    s.case("308")
    s.set_queue("debug", users=None)
    s.case("309", "310", "311", "312", "313", "314", "315")
    s.set_queue("debug", started=True)
    s.wait(2)
    s.case("316", "317")
    s.wait(2)
    for sequence, status in (("8400035", 0), ("8400041", 0), ("8400045", 1)):
        s.end(sequence, status)
    s.case("318", "319", "320")
    s.run("qsub -h small.pbs")
    s.case("321", user="bob")
    s.case("322", user="bob")
    s.case("323", "324")


def outages(s: Session) -> None:
    """The server is down, restarted, its completed jobs expire, a MOM dies."""
    s.run("qsub -N survive -v SL=12,RC=5 small.pbs")
    s.wait(2)
    s.model.job_started("8400048.bw", 6837)
    for name, verb in (("400", "qsub"), ("401", "qstat"), ("402", "qdel"), ("403", "pbsnodes")):
        s.down(name, *client.server_down(verb, "bw"))
    s.model.server_restarted(s.now)
    s.wait(11)
    s.end("8400048", 5)
    s.case("404", "405")
    for name, verb in (("410", "qsub"), ("411", "qstat")):
        s.down(name, *client.authority_down(verb))
    s.case("412")
    s.set_queue("debug", keep_completed_s=8.0)
    s.run("qsub -q debug -N keep8 small.pbs")
    s.wait(2)
    s.end("8400049", 0)
    s.case("420")
    s.wait(10)
    s.case("421")
    s.run("qsub -q nosuch small.pbs")
    s.run("qsub -N momdie -l nodes=nid00005:ppn=1 -v SL=600 small.pbs")
    s.wait(2)
    s.model.node_died(5, s.now)
    s.case("430", "431", "432")
    s.wait(20)
    s.case("433", "434", "435")
    s.model.purge("8400051.bw")
    s.model.node_back(s.now, 5)
    s.case("436", "443")


def start_failures(s: Session) -> None:
    """Jobs whose script could not be started: no home directory, prologue of exit code 1 and 2."""
    for _ in range(621):
        s.run("qsub -q nosuch small.pbs")
    s.shell("echo hi | qsub -N nohome -l nodes=1,walltime=60", user="bob")
    s.wait(2)
    s.end("8400673", -2)
    s.run("qsub -N pro1 small.pbs")
    s.wait(2)
    s.end("8400674", -2)
    s.case("461")
    s.run("qsub -N pro2 small.pbs")
    for _ in range(11):
        s.wait(2)
        s.model.start_failed(s.now, "8400675.bw", -14)
    s.case("462")


def empty_server(old: Session) -> None:
    """A server made anew."""
    s = Session("torque-6.1.3", CLUSTER, old.now)
    s.replies = old.replies
    s.case("470", "471")
    s.run("qsub -N sigk -v SL=60 small.pbs")
    s.wait(2)
    s.model.job_started("8400001.bw", 16234)
    s.case("472")
    s.end("8400001", 137)
    s.case("473")


def cray() -> dict[str, Reply]:
    """The session of torque-6.1.3-craymode; the jobs between its cases are not played where nothing shows them."""
    s = Session("torque-6.1.3-craymode", CRAY)
    s.case("001", "002")
    s.wait(2)
    s.end("8400001", 0)
    s.model.purge("8400001.bw")
    s.case("004", "005", "006", "010")
    s.wait(2)
    s.case("011", "012")
    s.wait(60)
    s.end("8400002", 3)
    s.case("013", "015", "016")

    later = CRAY.model_copy(update={"first_sequence": 8400297})
    s = _joined(Session("torque-6.1.3-craymode", later, s.now), s)
    for number in range(101, 301):
        s.model.node_died(number)
    s.run("qsub -v SL=600 job40.pbs")
    s.wait(2)
    s.case("017")
    s.end("8400297", 143)
    s.case("018")

    full = CRAY.model_copy(update={"nodes": 4672, "feature_nodes": {"xe": (1, 4672)}})
    s = _joined(Session("torque-6.1.3-craymode", full, s.now), s)
    for _ in range(295):
        s.run("qsub bw.pbs")
    s.wait(2)
    s.case("022")
    return s.replies


def _joined(new: Session, old: Session) -> Session:
    new.replies = old.replies
    return new
