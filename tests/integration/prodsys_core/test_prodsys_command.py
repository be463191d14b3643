"""The command as a person uses it: exit codes, one clear line, nothing half-written."""

import json
import os
import sqlite3
import stat
import subprocess
import sys

import pytest
import yaml


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A configuration with a migrated database."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "catalogue.txt").write_text("274495 cdr11001-274495.raw 300\n274495 cdr11002-274495.raw 0\n")
    merges = {f"merge {name}": "x {inputs} {out}" for name in ("mdst", "hist", "dump")}
    config = {
        "state_dir": str(folder / "state"),
        "database": {"engine": "sqlite", "path": str(folder / "db.sqlite")},
        "panda": {"url": "http://127.0.0.1:1"},
        "sites": [
            {
                "name": "DEMO",
                "panda_queue": "L",
                "merge_queue": "S",
                "files": {"root": str(folder)},
                "commands": {"reconstruct": "x {raw} {mdst}", **merges},
            }
        ],
    }
    (folder / "prodsys.yaml").write_text(yaml.safe_dump(config))
    assert prodsys(folder, "migrate", "-v0").returncode == 0
    return folder


def prodsys(folder, *words, **environment):
    names = ("DJANGO_SETTINGS_MODULE", "PRODSYS_TEST_DATABASE", "PRODSYS_CONFIG")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [sys.executable, "-m", "prodsys_core.cli", *words],
        env=clean | {"PRODSYS_CONFIG": str(folder / "prodsys.yaml")} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def task_file(folder, **changes):
    values = {
        "name": "demo",
        "type": "mass production",
        "site": "DEMO",
        "production": "demo",
        "path": "gp/",
        "soft": "s",
        "files_source": "runs list",
        "runs": [274495],
        "catalogue": str(folder / "catalogue.txt"),
        "files_home": "/raw/",
        "files_home_prefix": f"{folder}/out/",
    }
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(values | changes, sort_keys=False))
    return str(path)


def test_a_task_from_file_to_staged_jobs(place):
    assert prodsys(place, "task", "create", task_file(place)).stdout == "task demo created, status draft\n"
    again = prodsys(place, "task", "create", task_file(place))
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert prodsys(place, "task", "set", "demo", "ready").returncode == 0
    assert "generated: 1" in prodsys(place, "tick").stdout
    assert (
        prodsys(place, "act", "correct", "demo", "--run", "274495", "--events", "9", "--yes").returncode == 0
    )
    held = prodsys(place, "task", "set", "demo", "send")
    assert (held.returncode, held.stdout.splitlines()) == (
        1,
        ["cdr11001-274495.raw: 9 events, in the source 300", "1 shown, nothing done; add --yes"],
    )
    assert prodsys(place, "task", "set", "demo", "send", "--yes").returncode == 0
    tick = prodsys(place, "tick", "--once")
    assert "nothing sent: PanDA is unavailable" in tick.stderr
    (task,) = json.loads(prodsys(place, "task", "list", "--json").stdout)
    assert (task["status"], task["jobs"], task["files_skipped"]) == ("send", {"staged": 1}, 1)
    (job,) = json.loads(prodsys(place, "jobs", "demo", "--json").stdout)
    assert (job["file"], job["events"], job["status"]) == ("cdr11001-274495.raw", 9, "staged")
    refused = prodsys(place, "task", "set", "demo", "archived")
    assert refused.returncode == 1
    assert "possible: cancelled, paused" in refused.stderr


def test_secret_key_is_a_file_for_its_owner_only(place):
    assert stat.S_IMODE((place / "state/secret-key").stat().st_mode) == 0o600


def test_secret_key_that_others_may_read_is_refused(place, tmp_path):
    config = yaml.safe_load((place / "prodsys.yaml").read_text()) | {"state_dir": str(tmp_path)}
    (tmp_path / "prodsys.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "secret-key").write_text("x" * 60)
    (tmp_path / "secret-key").chmod(0o644)
    result = prodsys(tmp_path, "task", "list")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "0600" in result.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"soft": "a;b"}, "task.yaml:6: soft: found 'a;b'"),
        ({"path": "a/../b/"}, "task.yaml:5: path: found 'a/../b/'"),
        ({"max_attempts": 0}, "task.yaml:13: max_attempts: found 0"),
        ({"colour": "red"}, "task.yaml:13: colour: unknown key"),
    ],
)
def test_bad_task_file_is_one_line_and_writes_nothing(place, changes, words):
    result = prodsys(place, "task", "create", task_file(place, **{"name": "bad", **changes}))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert words in result.stderr
    assert "no task named bad\n" in prodsys(place, "task", "list", "bad").stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"site": "MARS"}, "expected one of the configured sites: DEMO"),
        ({"files_home_prefix": "/elsewhere/"}, "files_home_prefix"),
        ({"type": "DDD filtering"}, "DEMO has no command for reconstruct of DDD filtering"),
    ],
)
def test_task_that_does_not_fit_the_site_is_refused(place, changes, words):
    result = prodsys(place, "task", "create", task_file(place, **{"name": "bad2", **changes}))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert words in result.stderr


def test_configuration_problems_are_lines_with_exit_2(place, tmp_path):
    (tmp_path / "prodsys.yaml").write_text("state_dir: rel\nfoo: 1\n")
    result = prodsys(tmp_path, "task", "list")
    assert result.returncode == 2
    assert f"{tmp_path}/prodsys.yaml:1: state_dir: found 'rel'" in result.stderr
    assert "prodsys.yaml:2: foo: unknown key" in result.stderr
    assert not (tmp_path / "rel").exists()
    missing = prodsys(tmp_path, "migrate", PRODSYS_CONFIG="")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


def test_database_without_tables_says_what_to_do(place, tmp_path):
    config = yaml.safe_load((place / "prodsys.yaml").read_text())
    config["database"]["path"] = str(tmp_path / "new.sqlite")
    (tmp_path / "prodsys.yaml").write_text(yaml.safe_dump(config))
    for words in (("task", "list"), ("tick",)):
        result = prodsys(tmp_path, *words)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
        assert "prodsys migrate" in result.stderr


def test_database_that_cannot_be_opened_is_one_line(place, tmp_path):
    config = yaml.safe_load((place / "prodsys.yaml").read_text())
    config["database"]["path"] = str(tmp_path / "no/such/db")
    (tmp_path / "prodsys.yaml").write_text(yaml.safe_dump(config))
    result = prodsys(tmp_path, "migrate")
    assert (result.returncode, result.stderr) == (1, "prodsys: database: unable to open database file\n")


def test_help_needs_no_configuration(place):
    result = prodsys(place, "--help", PRODSYS_CONFIG="")
    assert result.returncode == 0
    for verb in ("task", "jobs", "runs", "tick", "serve", "migrate"):
        assert verb in result.stdout


def test_migrations_are_committed(place):
    result = prodsys(place, "makemigrations", "--check", "--dry-run")
    assert result.returncode == 0, result.stdout


def insert(database, table, **values):
    """A row with nothing but what must be there."""
    for _, name, _, needed, _, key in database.execute(f"PRAGMA table_info({table})").fetchall():
        if needed and not key:
            values.setdefault(name, "2026-11-26 00:00:00" if name.endswith("_at") else "")
    names = ", ".join(values)
    database.execute(
        f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", (*values.values(),)
    )


def test_runs_of_an_older_database_are_at_the_site_of_their_task(place, tmp_path):
    config = yaml.safe_load((place / "prodsys.yaml").read_text())
    config["database"]["path"] = str(tmp_path / "old.sqlite")
    (tmp_path / "prodsys.yaml").write_text(yaml.safe_dump(config))
    assert prodsys(tmp_path, "migrate", "prodsys", "0002", "-v0").returncode == 0
    with sqlite3.connect(tmp_path / "old.sqlite") as database:
        for task, site in ((1, "DEMO"), (2, "OTHER")):
            insert(database, "prodsys_task", id=task, name=f"t{task}", site=site, status="running")
            insert(database, "prodsys_run", id=task, task_id=task, number=274495, status="open")
    database.close()
    assert prodsys(tmp_path, "migrate", "-v0").returncode == 0
    (run,) = json.loads(prodsys(tmp_path, "runs", "t2", "--json").stdout)
    assert (run["run"], run["site"]) == (274495, "OTHER")
    (task,) = json.loads(prodsys(tmp_path, "task", "list", "t1", "--json").stdout)
    assert task["sites"] == ["DEMO"]


def test_sites_say_what_they_take_now_and_until_when_they_are_closed(place):
    rows = json.loads(prodsys(place, "sites", "--json").stdout)
    assert [(row["site"], row["status"], row["queue"], row["downtime"]) for row in rows] == [
        ("DEMO", "online", "L", None),
        ("DEMO", "online", "S", None),
    ]
    assert all(row["waiting"] == row["running"] == row["ended"] == 0 < row["room"] for row in rows)
    told = (place / "prodsys.yaml").read_text()
    config = yaml.safe_load(told)
    times = {"begins": "2026-01-01T00:00:00Z", "ends": "2999-01-01T00:00:00Z"}
    later = {"begins": "2999-06-01T00:00:00Z", "ends": "2999-07-01T00:00:00Z"}
    config["sites"][0]["downtimes"] = [later, times]
    try:
        (place / "prodsys.yaml").write_text(yaml.safe_dump(config))
        first, second = prodsys(place, "sites").stdout.splitlines()
    finally:
        (place / "prodsys.yaml").write_text(told)
    assert first.startswith("DEMO\toffline\tL\t0 waiting, 0 running, 0 ended, room for ")
    assert first.endswith("downtime 2026-01-01T00:00:00+00:00 to 2999-01-01T00:00:00+00:00")
    assert second.startswith("DEMO\toffline\tS\t")


def test_a_task_of_which_nothing_was_sent_is_replaced_with_all_that_was_made_of_it(place):
    words = ("task", "create", task_file(place, name="again"))
    assert prodsys(place, *words, "--replace").returncode == 0
    assert prodsys(place, "task", "set", "again", "ready").returncode == 0
    refused = prodsys(place, *words, "--replace")
    assert refused.returncode == 1 and "found task 'again' in ready" in refused.stderr
    prodsys(place, "tick")
    assert len(json.loads(prodsys(place, "jobs", "again", "--json").stdout)) == 1
    replaced = prodsys(place, "task", "create", task_file(place, name="again", soft="s2"), "--replace")
    assert replaced.stdout == "task again created, status draft\n"
    assert json.loads(prodsys(place, "jobs", "again", "--json").stdout) == []
    assert len(json.loads(prodsys(place, "task", "list", "again", "--json").stdout)) == 1
