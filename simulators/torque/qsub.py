"""qsub: options, directives of the script, and the submission made of both. Pure.

The command line wins over directives; -l words of both are joined, those of the command line last.
"""

from __future__ import annotations

import getopt
import os.path
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from simulators.torque import usage
from simulators.torque.arrays import parse_start_time
from simulators.torque.job import Submission
from simulators.torque.request import Reply, Request
from simulators.torque.resources import split_resources
from simulators.torque.site import TorqueSite

# getopt(3) letters of the real qsub that this one knows.
_LETTERS = "a:A:c:d:D:e:hj:k:l:m:M:N:o:p:q:r:S:t:v:VW:z"
# Letters of the real qsub that nothing here stands behind: refused rather than ignored.
_NOT_SIMULATED = "b:C:fF:IJ:K:nP:T:u:w:xX"
_JOIN = ("oe", "eo", "n")
_NAME_MAX = 255


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a command line or of directives: the last value of each letter, all -l words in order."""

    values: Mapping[str, str]
    resources: tuple[tuple[str, str], ...] = ()
    script: str | None = None


def parse_words(words: tuple[str, ...]) -> Options | Reply:
    """Options of the command line; a Reply where qsub would say no by itself."""
    try:
        pairs, operands = getopt.gnu_getopt(list(words), _LETTERS + _NOT_SIMULATED)
    except getopt.GetoptError as error:
        complaint = "invalid option" if "not recognized" in error.msg else "option requires an argument"
        return Reply(stderr=f"qsub: {complaint} -- '{error.opt}'\n[exiting]\n\n{usage.QSUB}", exit_code=2)
    if len(operands) > 1:
        return Reply(stderr=f"[only one script may be given]\n\n{usage.QSUB}", exit_code=2)
    return _check(pairs, operands[0] if operands else None)


def parse_directives(script: str) -> Options | Reply:
    """Options of the #PBS lines before the first line that is neither comment nor blank."""
    words: list[str] = []
    for line in script.splitlines():
        if line.startswith("#PBS"):
            try:
                words += shlex.split(line.removeprefix("#PBS"), comments=True)
            except ValueError as error:
                return Reply(stderr=f"[{error}]\n\n{usage.QSUB}", exit_code=2)
        elif line.strip() and not line.startswith("#"):
            break
    options = parse_words(tuple(words))
    if isinstance(options, Options) and options.script is not None:
        if options.script == "-":
            return Reply(stderr=f"[a single - is not a valid option]\n\n{usage.QSUB}", exit_code=2)
        return Reply(stderr=f"[{options.script} is no option]\n\n{usage.QSUB}", exit_code=2)
    return options


def make_submission(options: Options, directives: Options, script: str, request: Request) -> Submission:
    """The submission of a script that was read, with the command line's options over its directives."""
    values = {**directives.values, **options.values}
    where = os.path.basename(options.script) if options.script else "STDIN"
    environment = request.environment
    variables = dict(environment) if "V" in values else {}
    for word in values.get("v", "").split(","):
        name, equals, value = word.partition("=")
        if name and (equals or name in environment):
            variables[name] = value if equals else environment[name]
    return Submission(
        owner=request.user,
        name=values.get("N", where),
        script=script,
        queue=values.get("q", "").partition("@")[0] or None,
        resources=(*directives.resources, *options.resources),
        stdout=_path(values.get("o"), request.cwd),
        stderr=_path(values.get("e"), request.cwd),
        join=values.get("j", "n"),
        rerunable=values.get("r", "y") == "y",
        held="h" in values,
        priority=int(values.get("p", "0")),
        account=values.get("A"),
        variables=tuple(variables.items()),
        user_variables=_user_variables(request),
        start_dir=_path(values.get("d"), request.cwd),
        work_dir=request.cwd,
        submit_args=" ".join(request.words),
        host=request.host,
        mail_points=values.get("m", "a"),
        shell=values.get("S"),
        array=values.get("t"),
        start_after=parse_start_time(values["a"]) if "a" in values else None,
        depend=values.get("W", "").removeprefix("depend=") if "depend=" in values.get("W", "") else None,
    )


def refuse(site: TorqueSite, request: Request) -> Reply | None:
    """What qsub refuses before it looks at anything."""
    if site.refuse_root and request.uid == 0:
        return Reply(stderr="qsub can not be run as root\n", exit_code=1)
    return None


def _check(pairs: list[tuple[str, str]], script: str | None) -> Options | Reply:
    values: dict[str, str] = {}
    resources: list[tuple[str, str]] = []
    for option, value in pairs:
        letter = option[1:]
        if letter in _NOT_SIMULATED:
            return Reply(stderr=f"qsub: option -{letter} is not simulated\n", exit_code=2)
        if letter == "l":
            found = split_resources(value)
            if found is None:
                return _illegal("l")
            resources += found
        elif letter == "W" and not value.startswith(("umask=", "depend=after")):
            return Reply(stderr=f"qsub: -W {value.partition('=')[0]} is not simulated\n", exit_code=2)
        elif not _legal(letter, value):
            return _illegal(letter)
        values[letter] = value
    return Options(values, tuple(resources), script)


def _legal(letter: str, value: str) -> bool:
    match letter:
        case "N":
            return 0 < len(value) <= _NAME_MAX and not any(c.isspace() for c in value)
        case "j":
            return value in _JOIN
        case "a":
            return parse_start_time(value) is not None
        case "r":
            return value in ("y", "n")
        case "p":
            return value.removeprefix("-").isdecimal() and -1024 <= int(value) <= 1023
    return True


def _illegal(letter: str) -> Reply:
    return Reply(stderr=f"[qsub: illegal -{letter} value]\n\n{usage.QSUB}", exit_code=2)


def _path(text: str | None, cwd: str) -> str | None:
    """Absolute path of `[host:]path`."""
    if text is None:
        return None
    return os.path.join(cwd, text.rpartition(":")[2])


def _user_variables(request: Request) -> tuple[tuple[str, str], ...]:
    """PBS_O_* of what the submitting environment has."""
    names = ("HOME", "LOGNAME", "PATH", "SHELL", "LANG")
    known = {"LOGNAME": request.user, **request.environment}
    return tuple((f"PBS_O_{name}", known[name]) for name in names if known.get(name))
