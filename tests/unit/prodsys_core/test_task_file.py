"""What a person writes: every problem with file, line and key; nothing dangerous passes."""

import pytest
import yaml

from prodsys_core.config import Config
from prodsys_core.taskfile import TaskFile
from prodsys_core.yamlfile import BadFile, parse_yaml

TASK = {
    "name": "demo",
    "type": "mass production",
    "site": "DEMO",
    "production": "demo",
    "path": "a/b/",
    "soft": "s",
    "files_source": "runs list",
    "runs": [1],
    "catalogue": "/c",
    "files_home": "/raw/",
    "files_home_prefix": "/out/",
}
CONFIG = {
    "state_dir": "/s",
    "database": {"engine": "sqlite", "path": "/s/db"},
    "panda": {"url": "http://127.0.0.1:1"},
    "sites": [
        {
            "name": "D",
            "panda_queue": "L",
            "merge_queue": "S",
            "files": {"root": "/out"},
            "commands": {"reconstruct": "x {raw}"},
        }
    ],
}


def problems(values, model=TaskFile):
    text = values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False)
    with pytest.raises(BadFile) as caught:
        parse_yaml(text, "f.yaml", model)
    return caught.value.problems


def test_good_files_pass():
    assert parse_yaml(yaml.safe_dump(TASK), "f", TaskFile).max_attempts == 5
    assert parse_yaml(yaml.safe_dump(CONFIG), "f", Config).panda.settle_s == 900


@pytest.mark.parametrize("field", ["name", "production", "soft", "template", "period", "site"])
@pytest.mark.parametrize(
    "text", ["a;b", "a b", "$(x)", "`x`", "../x", "..", "a/b", "a\nb", "-x", "a'b", "x" * 400, "é"]
)
def test_no_field_takes_a_shells_characters(field, text):
    (problem,) = problems(TASK | {field: text})
    assert field in problem


@pytest.mark.parametrize("text", ["/a/", "a", "a//b/", "a/../b/", "../", "a/./b/", "", "a b/", "a/;/"])
def test_path_is_relative_with_one_slash_at_the_end(text):
    assert "path: found" in problems(TASK | {"path": text})[0]


@pytest.mark.parametrize("text", ["out/", "/out", "/out//", "/a/../b/", "/a:b/", "/a b/"])
def test_homes_are_absolute_with_one_slash_at_the_end(text):
    for field in ("files_home", "files_home_prefix"):
        assert f"{field}: found" in problems(TASK | {field: text})[0]


def test_every_problem_is_named_with_its_line():
    found = problems("name: 3\ntype: x\nfoo: 1\n")
    assert found[0].startswith("f.yaml:1: name: found 3, ")
    assert "f.yaml:3: foo: unknown key" in found
    assert "f.yaml:1: soft: key is missing" in found


def test_source_must_fit_its_kind():
    assert "expected `runs`" in problems(TASK | {"runs": []})[0]
    assert "expected `files`" in problems(TASK | {"files_source": "files list"})[0]
    assert "files[0]" in problems(TASK | {"files": ["../x.raw"]})[0]


def test_key_given_twice_is_a_problem():
    assert "given twice" in problems("name: a\nname: b\n")[0]


@pytest.mark.parametrize("text", ["a: [1", "", "- 1\n", "\tx: 1", "a: !!python/object:os.system x"])
def test_what_is_no_mapping_is_one_clear_line(text):
    (problem,) = problems(text)
    assert problem.startswith("f.yaml:1: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"panda": {"url": "ftp://x"}}, "panda.url: found 'ftp://x'"),
        ({"panda": {"url": "http://x", "submit_chunk": 0}}, "panda.submit_chunk: found 0"),
        ({"panda": {"url": "http://x", "submit_chunk": "200"}}, "panda.submit_chunk: found '200'"),
        ({"database": {"engine": "oracle"}}, "database"),
        ({"state_dir": "rel"}, "state_dir: found 'rel', expected an absolute path"),
        ({"sites": []}, "sites: found a list"),
        ({"instance": "a b"}, "instance"),
    ],
)
def test_config_problems_name_their_key(change, words):
    assert any(words in problem for problem in problems(CONFIG | change, Config))


@pytest.mark.parametrize(
    "commands", [{"reconstruct": "x {nope}"}, {"merge": "x"}, {"reconstruct": ""}, {"reconstruct": "x 'y"}]
)
def test_command_templates_are_checked(commands):
    site = CONFIG["sites"][0] | {"commands": commands}
    (problem,) = problems(CONFIG | {"sites": [site]}, Config)
    assert "sites[0].commands" in problem


@pytest.mark.parametrize("text", ["name: a\nyear: 2020-13-01\n", "name: a\nyear: &x [*x]\n", "[" * 3000])
def test_a_value_that_is_none_is_a_line_too(text):
    (problem,) = problems(text)
    assert problem.startswith("f.yaml:2: not YAML: month" if "13" in text else "f.yaml:1: not YAML")


def test_a_source_that_does_not_fit_is_named_at_its_kind():
    (problem,) = problems(TASK | {"runs": []})
    assert problem.startswith("f.yaml:7: files_source: expected `runs` and `catalogue`")


@pytest.mark.parametrize(
    "change",
    [
        {"catalogue": "/" + "c" * 1000},
        {"files_home": "/" + "h" * 300 + "/"},
        {"files_source": "files list", "files": ["cdr١-2.raw"], "runs": []},
    ],
)
def test_what_no_column_or_name_holds_is_refused(change):
    (problem,) = problems(TASK | change)
    assert any(f": {key}" in problem for key in change)


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        ("2026-12-01T06:00:00Z", '"2026-12-01T18:00:00+00:00"', None),
        ("2026-12-01T06:00:00Z", "2026-12-01T05:00:00Z", "expected ends after begins"),
        ("'2026-12-01T06:00:00'", "2026-12-01T18:00:00Z", "begins"),
        ("soon", "2026-12-01T18:00:00Z", "begins: found 'soon'"),
        ("1764568800", "2026-12-01T18:00:00Z", "begins"),
    ],
)
def test_downtimes_begin_and_end(begins, ends, words):
    text = yaml.safe_dump(CONFIG, sort_keys=False) + f"  downtimes: [{{begins: {begins}, ends: {ends}}}]\n"
    if words:
        assert words in problems(text, Config)[0]
    else:
        assert parse_yaml(text, "f", Config).sites[0].downtimes


@pytest.mark.parametrize(
    ("commands", "command"),
    [
        ({"reconstruct": "reco {raw} {mdst}"}, None),
        ({"reconstruct": "reco {raw} {mdst}", "DDD filtering": "ddd {raw} {dump}"}, "ddd {raw} {dump}"),
        ({"reconstruct": "any {raw} {dump}"}, "any {raw} {dump}"),
    ],
)
def test_filtering_has_a_command_of_its_own(commands, command):
    values = CONFIG | {"sites": [CONFIG["sites"][0] | {"commands": commands}]}
    (site,) = parse_yaml(yaml.safe_dump(values), "f", Config).sites
    assert site.command_for("reconstruct", "DDD filtering") == command
    assert site.command_for("reconstruct", "mass production") == commands["reconstruct"]
    assert site.command_for("merge dump", "DDD filtering") is None
