"""The user's commands over the model: a request in, what the command prints out. Pure.

`answer` is the one door. qsub needs the script's text: the caller reads it (`script_wanted` says which file).
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Mapping, Sequence

from simulators.torque import nodetexts, orders, qsub, usage
from simulators.torque.arrays import parse_array
from simulators.torque.errors import Pbse, TorqueError
from simulators.torque.job import Letter
from simulators.torque.model import TorqueModel
from simulators.torque.qstat import full_id, qstat
from simulators.torque.request import Reply, Request

Verb = Callable[[TorqueModel, Request, float], Reply]
_ID = re.compile(r"\d+(\[\d*\])?(\.[\w.-]+)?")


def answer(model: TorqueModel, verb: str, request: Request, now: float, script: str | None = None) -> Reply:
    """What `verb` prints and exits with. `script`: the text that qsub was given."""
    if verb == "qsub":
        return submit(model, request, now, script or "")
    return VERBS[verb](model, request, now)


# --- qsub ---------------------------------------------------------------------------------------------------


def script_wanted(model: TorqueModel, request: Request) -> str | None | Reply:
    """Path of the script that qsub wants to read, None for standard input, or what it says without reading."""
    if request.words == ("--version",):
        return Reply(usage.VERSION)
    refused = qsub.refuse(model.site, request)
    if refused is not None:
        return refused
    options = qsub.parse_words(request.words)
    if isinstance(options, Reply):
        return options
    return None if options.script in (None, "-") else options.script


def unreadable(path: str, reason: str) -> Reply:
    """What qsub says of a script that it cannot read."""
    return Reply(stderr=f"qsub: script file '{path}' cannot be loaded - {reason}\n", exit_code=1)


def submit(model: TorqueModel, request: Request, now: float, script: str) -> Reply:
    """qsub with the script's text read."""
    options = qsub.parse_words(request.words)
    if isinstance(options, Reply):
        return options
    directives = qsub.parse_directives(script)
    if isinstance(directives, Reply):
        return directives
    server = {**directives.values, **options.values}.get("q", "").partition("@")[2]
    if server and server != model.site.server_name:
        return _no_server(server)
    made = model.submit(now, qsub.make_submission(options, directives, script, request))
    if isinstance(made, TorqueError):
        return Reply(stderr=f"qsub: submit error ({made.text})\n", exit_code=made.exit_code)
    return Reply(stdout="" if "z" in options.values else f"{made}\n")


def _no_server(server: str) -> Reply:
    return Reply(
        stderr=f"Can not resolve name for server {server}. (rc = -2 - )\n"
        f"Cannot resolve specified server host '{server}'.\n"
        f"qsub: cannot connect to server {server} (errno=15010) Access from host not allowed, or unknown host\n",
        exit_code=162,
    )


# --- qdel, qselect, orders ---------------------------------------------------------------------------------


_ORDERS = {"qhold": orders.hold, "qrls": orders.release}
# Options of qdel that only an operator may give, and what others hear.
_QDEL_OPERATOR = {
    "-m": "must have operator or manager privilege to use -m parameter",
    "-p": "",
}


def qdel(model: TorqueModel, request: Request, now: float) -> Reply:
    """qdel of ids, of `all` jobs of the user, of elements of an array (-t)."""
    words = list(request.words)
    if not words:
        return Reply(stderr=usage.QDEL, exit_code=2)
    elements = None
    if words[0] in _QDEL_OPERATOR and len(words) > (2 if words[0] == "-m" else 1):
        refused = TorqueError(Pbse.PERM, _QDEL_OPERATOR[words[0]])
        said = f"qdel: {refused.text} {full_id(model, words[-1])}\n"
        return Reply(stderr=said, exit_code=refused.exit_code)
    if words[0] == "-t" and len(words) == 3:
        parsed = parse_array(words[1])
        if parsed is None:
            return Reply(stderr=usage.QDEL, exit_code=2)
        elements, words = parsed[0], words[2:]
    elif words[0].startswith("-"):
        return Reply(stderr=f"qdel: option {words[0]} is not simulated\n", exit_code=2)
    errors, code = "", 0
    for word in words:
        if word in ("all", "ALL"):
            for job in list(model.jobs.values()):
                if job.submission.owner == request.user and job.state is not Letter.COMPLETE:
                    model.delete(now, job.batch_id, request.user)
        elif not _ID.fullmatch(word):
            errors, code = errors + f"qdel: illegally formed job identifier: {word}\n", 1
        else:
            no = _delete(model, full_id(model, word), request.user, now, elements)
            if no is not None:
                errors, code = errors + _qdel_error(model, word, no), no.exit_code
    return Reply(stderr=errors, exit_code=code)


def _delete(
    model: TorqueModel, batch_id: str, user: str, now: float, elements: Sequence[int] | None
) -> TorqueError | None:
    array = model.arrays.get(batch_id)
    if array is None:
        return model.delete(now, batch_id, user)
    no = None
    for element in array.elements:
        job = model.jobs.get(element)
        if (
            job is None
            or job.state is Letter.COMPLETE
            or (elements is not None and job.index not in elements)
        ):
            continue
        no = model.delete(now, element, user) or no
    return no


def _qdel_error(model: TorqueModel, word: str, no: TorqueError) -> str:
    if no.number is Pbse.UNKJOBID:
        return f"qdel: nonexistent job id: {word}\n"
    return f"qdel: {no.text} {full_id(model, word)}\n"


def qselect(model: TorqueModel, request: Request, now: float) -> Reply:
    """Ids of jobs by user (-u), states (-s), queue (-q) and name (-N)."""
    try:
        pairs, operands = getopt.getopt(list(request.words), "u:s:q:N:")
    except getopt.GetoptError as error:
        return Reply(stderr=f"qselect: invalid option -- '{error.opt}'\n", exit_code=2)
    wanted = dict(pairs)
    if operands:
        return Reply(stderr="qselect: no operands\n", exit_code=2)
    chosen = (
        job
        for job in model.jobs.values()
        if job.submission.owner in wanted.get("-u", job.submission.owner).split(",")
        and job.state in wanted.get("-s", job.state)
        and job.queue == wanted.get("-q", job.queue)
        and job.name == wanted.get("-N", job.name)
    )
    return Reply("".join(f"{job.batch_id}\n" for job in chosen))


def change_hold(verb: str) -> Verb:
    """qhold or qrls of ids."""

    def run(model: TorqueModel, request: Request, now: float) -> Reply:
        if not request.words or request.words[0].startswith("-"):
            return Reply(stderr=f"usage: {verb} job_identifier...\n", exit_code=2)
        return _each(verb, model, request.words, lambda i: _ORDERS[verb](model, now, i, request.user))

    return run


def qalter(model: TorqueModel, request: Request, now: float) -> Reply:
    """qalter -N name, -l walltime=T, -p priority of ids."""
    try:
        pairs, ids = getopt.getopt(list(request.words), "N:l:p:")
    except getopt.GetoptError as error:
        return Reply(stderr=f"qalter: invalid option -- '{error.opt}'\n", exit_code=2)
    changes = {}
    for option, value in pairs:
        name, equals, rest = value.partition("=")
        if option == "-l" and (name != "walltime" or not equals):
            return Reply(stderr=f"qalter: -l {name} is not simulated\n", exit_code=2)
        if option == "-p" and not value.removeprefix("-").isdecimal():
            return Reply(stderr="qalter: illegal -p value\n", exit_code=2)
        changes[{"-N": "name", "-l": "walltime", "-p": "priority"}[option]] = (
            rest if option == "-l" else value
        )
    return _each("qalter", model, ids, lambda i: orders.alter(model, now, i, request.user, changes))


def qmove(model: TorqueModel, request: Request, now: float) -> Reply:
    """qmove QUEUE ids."""
    queue, *ids = request.words or ("",)
    if not ids:
        return Reply(stderr="usage: qmove destination job_identifier...\n", exit_code=2)
    return _each("qmove", model, ids, lambda i: orders.move(model, now, i, request.user, queue))


def qsig(model: TorqueModel, request: Request, now: float) -> Reply:
    """qsig [-s SIGNAL] ids."""
    words = list(request.words)
    name = "SIGTERM"
    if words[:1] == ["-s"] and len(words) > 1:
        name, words = words[1], words[2:]
    return _each("qsig", model, words, lambda i: orders.send_signal(model, now, i, request.user, name))


def qrerun(model: TorqueModel, request: Request, now: float) -> Reply:
    """Users may not: the operator's way is an order to the server (control.py)."""
    no = TorqueError(Pbse.PERM, "additional permissions required (ATR_DFLAG_MGWR | ATR_DFLAG_OPWR)")
    return _each(
        "qrerun", model, request.words, lambda i: no if i in model.jobs else TorqueError(Pbse.UNKJOBID)
    )


def qrun(model: TorqueModel, request: Request, now: float) -> Reply:
    """Users may not start a job by hand; one that runs is named first, as Torque does."""

    def refuse(batch_id: str) -> TorqueError:
        job = model.jobs.get(batch_id)
        if job is None:
            return TorqueError(Pbse.UNKJOBID)
        running = job.state is Letter.RUNNING
        return TorqueError(Pbse.BADSTATE, "job already running") if running else TorqueError(Pbse.PERM)

    reply = _each("qrun", model, request.words, refuse)
    return Reply(reply.stdout, reply.stderr, 2 if reply.exit_code else 0)


def _each(
    verb: str, model: TorqueModel, ids: Sequence[str], order: Callable[[str], TorqueError | None]
) -> Reply:
    """Give an order for each id; the exit code is that of the last no."""
    errors, code = "", 0
    for word in ids:
        no = order(full_id(model, word))
        if no is not None:
            errors, code = errors + f"{verb}: {no.text} {full_id(model, word)}\n", no.exit_code
    return Reply(stderr=errors, exit_code=code)


# --- pbsnodes, showbf --------------------------------------------------------------------------------------


def pbsnodes(model: TorqueModel, request: Request, now: float) -> Reply:
    """pbsnodes -a, -x, names, and -l [all]."""
    site, nodes = model.site, list(model.nodes.values())
    words = list(request.words)
    match words:
        case [] | ["-a"]:
            logins = (
                [nodetexts.render_login(n + 1, site, now) for n in range(site.login_nodes)]
                if site.cray
                else []
            )
            return Reply("".join([nodetexts.render_node(node, site, now) for node in nodes] + logins))
        case ["-x"]:
            return Reply(nodetexts.render_nodes_xml(nodes, site, now))
        case ["-l", *rest] if rest in ([], ["all"]):
            rows = [
                (nodetexts.node_label(node, site), nodetexts.node_state(node, site, now)) for node in nodes
            ]
            return Reply(
                "".join(f"{label:<20} {state}\n" for label, state in rows if rest or "down" in state)
            )
        case [option, *_] if option.startswith("-"):
            return Reply(stderr=usage.PBSNODES, exit_code=1)
    blocks = []
    for word in words:
        number, login = site.node_number(word), word.removeprefix("login")
        if number is not None:
            blocks.append(nodetexts.render_node(model.nodes[number], site, now))
        elif site.cray and word != login and login.isdecimal() and 0 < int(login) <= site.login_nodes:
            blocks.append(nodetexts.render_login(int(login), site, now))
        else:
            return Reply(stderr="pbsnodes: Unknown node  MSG=cannot locate specified node\n", exit_code=1)
    return Reply("".join(blocks))


def showbf(model: TorqueModel, request: Request, now: float) -> Reply:
    """showbf [--blocking] [-p PARTITION]: what a job could have at once."""
    try:
        pairs, operands = getopt.getopt(list(request.words), "p:", ["blocking"])
    except getopt.GetoptError as error:
        return Reply(stderr=f"showbf: {error.msg}\n", exit_code=1)
    if operands:
        return Reply(stderr="showbf: no operands\n", exit_code=1)
    partition = dict(pairs).get("-p", model.site.server_name)
    return Reply(nodetexts.render_holes(partition, model.holes(now), model.site.slots, now))


VERBS: Mapping[str, Verb] = {
    "qstat": qstat,
    "qdel": qdel,
    "qselect": qselect,
    "qhold": change_hold("qhold"),
    "qrls": change_hold("qrls"),
    "qalter": qalter,
    "qmove": qmove,
    "qsig": qsig,
    "qrerun": qrerun,
    "qrun": qrun,
    "pbsnodes": pbsnodes,
    "showbf": showbf,
}
