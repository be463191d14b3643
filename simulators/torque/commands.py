"""The user's commands over the model: a request in, what the command prints out. Pure.

`answer` is the one door. qsub needs the script's text: the caller reads it (`script_wanted` says which file).
"""

from __future__ import annotations

import getopt
import re
from collections.abc import Callable, Mapping, Sequence

from simulators.torque import qsub, texts, usage
from simulators.torque.errors import Pbse, TorqueError
from simulators.torque.job import BatchJob, Letter
from simulators.torque.model import TorqueModel
from simulators.torque.request import Reply, Request

_ID = re.compile(r"\d+(\[\d*\])?(\.[\w.-]+)?")


def answer(model: TorqueModel, verb: str, request: Request, now: float, script: str | None = None) -> Reply:
    """What `verb` prints and exits with. `script`: the text that qsub was given."""
    if verb == "qsub":
        return submit(model, request, now, script or "")
    return VERBS[verb](model, request, now)


# --- qsub ---------------------------------------------------------------------------------------------------


def script_wanted(model: TorqueModel, request: Request) -> str | None | Reply:
    """Path of the script that qsub wants to read, None for standard input, or what it says without reading."""
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


# --- qstat --------------------------------------------------------------------------------------------------


def qstat(model: TorqueModel, request: Request, now: float) -> Reply:
    """Plain, -f, -f -1 and -x; ids or queues as operands."""
    try:
        pairs, operands = getopt.gnu_getopt(list(request.words), "f1xt")
    except getopt.GetoptError as error:
        if error.opt in "aeiGMnQqBRrsuW":
            return Reply(stderr=f"qstat: option -{error.opt} is not simulated\n", exit_code=2)
        return Reply(stderr=f"qstat: invalid option -- '{error.opt}'\n{usage.QSTAT}", exit_code=2)
    options = {option for option, _ in pairs}
    jobs: list[BatchJob] = []
    errors, code = "", 0
    for operand in operands:
        found = _operand(model, operand)
        if isinstance(found, str):
            errors += found
            code = Pbse.UNKQUE % 256 if "queue" in found else Pbse.UNKJOBID % 256
        else:
            jobs += found
    if not operands:
        jobs = list(model.jobs.values())
    if code and not jobs:
        return Reply(stderr=errors, exit_code=code)
    return Reply(_render(options, jobs, model, now), errors, code)


def _render(options: set[str], jobs: Sequence[BatchJob], model: TorqueModel, now: float) -> str:
    if "-x" in options:
        return texts.render_xml(jobs, now, model.site)
    if "-f" in options:
        return texts.render_full(jobs, now, model.site, one_line="-1" in options)
    return texts.render_table(jobs, now, model.site)


def _operand(model: TorqueModel, operand: str) -> list[BatchJob] | str:
    if not operand[:1].isdigit():
        if operand in model.site.queues:
            return [job for job in model.jobs.values() if job.queue == operand]
        return f"qstat: Unknown queue destination {operand}\n"
    job = model.jobs.get(full_id(model, operand))
    return [job] if job is not None else f"qstat: Unknown Job Id Error {full_id(model, operand)}\n"


def full_id(model: TorqueModel, text: str) -> str:
    """A job id with its server, which users may leave out."""
    return text if "." in text else f"{text}.{model.site.server_name}"


# --- qdel, pbsnodes -----------------------------------------------------------------------------------------


def qdel(model: TorqueModel, request: Request, now: float) -> Reply:
    """qdel of ids, or of `all` jobs of the user."""
    words = list(request.words)
    if not words:
        return Reply(stderr=usage.QDEL, exit_code=2)
    if words[0].startswith("-"):
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
            no = model.delete(now, full_id(model, word), request.user)
            if no is not None:
                errors, code = errors + _qdel_error(model, word, no), no.exit_code
    return Reply(stderr=errors, exit_code=code)


def _qdel_error(model: TorqueModel, word: str, no: TorqueError) -> str:
    if no.number is Pbse.UNKJOBID:
        return f"qdel: nonexistent job id: {word}\n"
    return f"qdel: {no.text} {full_id(model, word)}\n"


def pbsnodes(model: TorqueModel, request: Request, now: float) -> Reply:
    """pbsnodes -a, names, and -l [all]."""
    words = list(request.words)
    nodes = list(model.nodes.values())
    match words:
        case [] | ["-a"]:
            return Reply("".join(texts.render_node(node, model.site, now) for node in nodes))
        case ["-l", *rest] if rest in ([], ["all"]):
            shown = [node for node in nodes if rest or not node.up]
            rows = [
                (texts.node_label(node, model.site), texts.node_state(node, model.site)) for node in shown
            ]
            return Reply("".join(f"{label:<20} {state}\n" for label, state in rows))
        case [option, *_] if option.startswith("-"):
            return Reply(stderr=usage.PBSNODES, exit_code=1)
    numbers = [model.site.node_number(word) for word in words]
    if None in numbers:
        return Reply(stderr="pbsnodes: Unknown node  MSG=cannot locate specified node\n", exit_code=1)
    return Reply(
        "".join(texts.render_node(model.nodes[number], model.site, now) for number in numbers if number)
    )


VERBS: Mapping[str, Callable[[TorqueModel, Request, float], Reply]] = {
    "qstat": qstat,
    "qdel": qdel,
    "pbsnodes": pbsnodes,
}
