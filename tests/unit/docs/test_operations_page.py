"""docs/operations/README.md explains every alarm and exit code that the pilot has, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pilot.cli import EXIT_FAILED, EXIT_OK, EXIT_USAGE, _parser
from pilot.loop import EXIT_OVERTAKEN
from pilot.rotation.daemon import EXIT_NO_JOBS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operations/README.md").read_text()


def calls(name: str) -> Iterator[ast.Call]:
    for path in sorted((ROOT / "pilot").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name:
                yield node


def pattern(name: ast.expr) -> str:
    """Name of an alarm, `*` for what is put in at run time."""
    if isinstance(name, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "*" for p in name.values)
    assert isinstance(name, ast.Constant), ast.dump(name)
    return str(name.value)


def rows(title: str) -> list[list[str]]:
    table = PAGE.partition(f"| {title} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]


def kinds_of_requests() -> set[str]:
    tree = ast.parse((ROOT / "pilot/multijob/actions.py").read_text())
    tuples = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    heads = [
        half.elts[0]
        for value in tuples
        for half in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])
        if isinstance(half, ast.Tuple)
    ]
    return {str(head.value) for head in heads if isinstance(head, ast.Constant)}


def test_each_alarm_of_the_code_is_explained_and_no_other() -> None:
    raised = {pattern(call.args[0]) for call in calls("raise_alarm")}
    explained = [row[0].strip("`") for row in rows("alarm | reason | what to do")]
    assert len(raised) >= 10
    assert sorted(explained) == sorted(raised)


def test_each_alarm_has_a_reason_and_something_to_do() -> None:
    for alarm, reason, remedy in rows("alarm | reason | what to do"):
        assert len(reason) > 30, alarm
        assert len(remedy) > 10, alarm


def test_each_kind_of_broken_answer_is_explained() -> None:
    named = {
        name
        for row in rows("alarm | whose answer | look at")
        for name in re.findall(r"`broken-(\w+)`", row[0])
    }
    assert named == kinds_of_requests()


def test_an_alarm_that_is_over_is_said_to_be() -> None:
    cleared = {pattern(call.args[0]) for call in calls("clear_alarm")}
    said = {row[0].strip("`") for row in rows("alarm | reason | what to do") if "Over with the" in row[1]}
    assert said == cleared


def test_each_exit_code_is_explained() -> None:
    codes = {int(row[0]) for row in rows("code | command | meaning")}
    assert codes == {EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NO_JOBS, EXIT_OVERTAKEN}


def test_only_commands_that_exist_are_named() -> None:
    known = {
        *("init", "check", "run", "status", "caldb", "start", "stop", "drain", "pause", "resume"),
        *("story", "why", "bundle", "reload", "confirm-kill"),
    }
    for page in ("README.md", "docs/operations/README.md"):
        text = (ROOT / page).read_text()
        named = {a or b for a, b in re.findall(r"^pilot ([\w-]+)|`pilot ([\w-]+)", text, re.MULTILINE)}
        assert named <= known, page
    usage = _parser().format_help()
    assert all(re.search(rf"^    {verb}\s", usage, re.MULTILINE) for verb in known)
