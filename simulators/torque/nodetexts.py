"""What pbsnodes and showbf print, to the character. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from simulators.torque.job import Node
from simulators.torque.resources import render_walltime
from simulators.torque.site import TorqueSite
from simulators.torque.texts import render_ranges

# MOMs on one machine, each with ports of its own, as at the captured site; those of Cray mode share one MOM.
_PORT_BASE = 31000
_HOST_STATUS = (
    "opsys=linux,uname=Linux {server} 4.4.0 #1 SMP x86_64,sessions=1001 1002,nsessions=2,nusers=1,idletime=1,"
    "totmem={kb}kb,availmem={kb}kb,physmem={kb}kb,ncpus=2,loadave=0.00,gres=,netload=0,state=free,varattr= ,"
    "cpuclock=Fixed,version=6.1.3,rectime={now},jobs="
)
_HOST_KB = 24684084
_CRAY_KB = 67108864
_CRAY_MB = 65536
Row = tuple[str, str]


def node_state(node: Node, site: TorqueSite, now: float) -> str:
    """`free`, `job-exclusive` or `down`, joined as pbsnodes does; a dead node is free until the server looks."""
    held = sum(len(slots) for slots in node.jobs.values())
    exclusive = bool(node.jobs) and (site.cray or held >= site.slots)
    down = not node.up and (node.died_at is None or now - node.died_at >= site.node_check_s)
    states = [word for word, holds in (("down", down), ("job-exclusive", exclusive)) if holds]
    return ",".join(states) or "free"


def render_node(node: Node, site: TorqueSite, now: float) -> str:
    """One block of pbsnodes."""
    return _block(node_label(node, site), node_rows(node, site, now))


def render_nodes_xml(nodes: Iterable[Node], site: TorqueSite, now: float) -> str:
    """pbsnodes -x: one line without an XML declaration."""
    done = []
    for node in nodes:
        rows = (("name", node_label(node, site)), *node_rows(node, site, now))
        done.append(f"<Node>{''.join(f'<{name}>{escape(text)}</{name}>' for name, text in rows)}</Node>")
    return f"<Data>{''.join(done)}</Data>\n"


def node_rows(node: Node, site: TorqueSite, now: float) -> list[Row]:
    """Attributes of a compute node in Torque's order."""
    state = node_state(node, site, now)
    properties = (*(("cray_compute",) if site.cray else ()), *site.features_of(node.number))
    rows = [
        ("state", state),
        ("power_state", "Offline" if "down" in state else "Running"),
        ("np", str(site.slots)),
        ("properties", ",".join(properties)),
        ("ntype", "cluster"),
    ]
    if node.jobs:
        jobs = sorted(node.jobs.items())
        rows.append(("jobs", ", ".join(f"{render_ranges(slots)}/{batch_id}" for batch_id, slots in jobs)))
    if "down" not in state:
        rows.append(("status", _cray_status(node, site, now) if site.cray else _host_status(site, now)))
    port = 15002 if site.cray else _PORT_BASE + 2 * node.number
    return [*rows, ("mom_service_port", str(port)), ("mom_manager_port", str(port + 1))]


def render_login(number: int, site: TorqueSite, now: float) -> str:
    """Block of a MOM node of Cray mode, where batch scripts run."""
    port = _PORT_BASE + 1002 + 2 * number
    rows = [
        ("state", "free"),
        ("power_state", "Running"),
        ("np", "2000"),
        ("properties", "alps_login"),
        ("ntype", "cluster"),
        ("jobs", ""),
        ("status", _host_status(site, now)),
        ("mom_service_port", str(port)),
        ("mom_manager_port", str(port + 1)),
    ]
    return _block(f"login{number}", rows)


def _host_status(site: TorqueSite, now: float) -> str:
    return _HOST_STATUS.format(server=site.server_name, kb=_HOST_KB, now=int(now))


def _cray_status(node: Node, site: TorqueSite, now: float) -> str:
    features = ",".join(site.features_of(node.number))
    listed = f"feature_list={features}," if features else ""
    return (
        f"node_index={node.number - 1},availmem={_CRAY_KB}kb,state=UP,physmem={_CRAY_KB}kb,totmem={_CRAY_KB}kb,"
        f"socket=1,CMEMORY={_CRAY_MB},CCU=0,APROC={site.slots},CPROC={site.slots},"
        f"name={site.node_name(node.number)},ARCH=XT,{listed}rectime={int(now)}"
    )


def _block(label: str, rows: Iterable[Row]) -> str:
    return f"{label}\n" + "".join(f"     {name} = {text}\n" for name, text in rows) + "\n"


def node_label(node: Node, site: TorqueSite) -> str:
    """Name of a node in pbsnodes: in Cray mode its number."""
    return str(node.number) if site.cray else site.node_name(node.number)


def render_holes(partition: str, holes: Sequence[tuple[int, float | None]], slots: int, now: float) -> str:
    """showbf: windows of (nodes, seconds; None: without end) that start now, after two header lines."""
    lines = [
        "Partition     Tasks  Nodes      Duration   StartOffset       StartDate\n",
        "---------     -----  -----  ------------  ------------  --------------\n",
    ]
    date = f"{datetime.fromtimestamp(now, UTC):%H:%M:%S_%m/%d}"
    for nodes, left_s in holes:
        duration = "INFINITY" if left_s is None else render_walltime(int(left_s))
        lines.append(
            f"{partition:<9} {nodes * slots:>9} {nodes:>6} {duration:>13} {'00:00:00':>13} {date:>15}\n"
        )
    return "".join(lines)
