"""docs/architecture/prodsys.md: its files can be used, its table is the code's."""

import re
from pathlib import Path

from prodsys_core.config import Config
from prodsys_core.tables import edges
from prodsys_core.taskfile import TaskFile
from prodsys_core.yamlfile import parse_yaml

TEXT = (Path(__file__).parents[3] / "docs/architecture/prodsys.md").read_text("utf-8")


def block(name):
    return re.search(rf"```yaml\n(# {name}\n.*?)```", TEXT, re.S)[1]


def test_configuration_of_the_page_is_accepted():
    assert parse_yaml(block("configuration"), "page", Config).sites[0].merge_queue == "SIM_SHORT"


def test_task_file_of_the_page_is_accepted_and_complete():
    task = parse_yaml(block("task"), "page", TaskFile)
    assert set(TaskFile.model_fields) - set(re.findall(r"^(\w+):", block("task"), re.M)) == {
        "files",
        "comment",
    }
    assert task.merge.dump_files == 1000


def test_life_of_a_task_is_the_codes():
    rows = re.findall(r"^\| ([a-z ]+) \| ([a-z ]+) \| (manager|service) \|$", TEXT, re.M)
    drawn = {(old, new, role.value) for (old, new), roles in edges("task").items() for role in roles}
    assert {tuple(row) for row in rows} == drawn
