"""Decisions about a node's calibration server."""

from __future__ import annotations

import pytest

from pilot.caldb import plan
from pilot.caldb.accounts import check_accounts
from pilot.caldb.plan import Address

MIB = 1 << 20


def test_measured_flags_and_no_network():
    argv = plan.server_argv(["/usr/sbin/mariadbd"], "/usr/share/mysql", "/n", None, None)
    assert argv[:2] == ("/usr/sbin/mariadbd", "--no-defaults"), "--no-defaults counts only in the first place"
    assert "--skip-networking" in argv
    assert "--query-cache-size=64M" in argv
    assert not [word for word in argv if "grant" in word or word.startswith("--user")]


def test_tcp_listens_on_loopback_only():
    argv = plan.server_argv(["x"], None, "/n", 3333, "nobody")
    assert "--bind-address=127.0.0.1" in argv
    assert "--port=3333" in argv
    assert "--user=nobody" in argv
    assert "--skip-networking" not in argv


def test_option_file_and_environment():
    assert plan.option_file(Address("/n/s")) == "[client]\nuser=calib\nsocket=/n/s\n"
    assert "host=127.0.0.1\nport=5\n" in plan.option_file(Address("/n/s", 5))
    environment = plan.payload_environment("mariadb", "/n", Address("/n/s"))
    assert environment["CDBSERVER"] == "localhost"
    assert plan.payload_environment("mariadb", "/n", Address("/n/s", 5))["CDBSERVER"] == "127.0.0.1:5"
    assert plan.payload_environment("sqlite", "/n", Address("")) == {"CDB_SQLITE": "/n/calib.sqlite"}


def test_space():
    assert plan.check_space(300 * MIB, 400 * MIB, None) is None
    assert "300 MiB" in str(plan.check_space(300 * MIB, 310 * MIB, None))
    assert "over half" in str(plan.check_space(300 * MIB, 9000 * MIB, 500 * MIB))


def test_socket_path():
    assert plan.check_socket_path("x" * 107) is None
    assert "shorter" in str(plan.check_socket_path("x" * 108))


def test_probe():
    assert plan.check_probe("4", "4") is None
    assert "missing" in str(plan.check_probe(None, "4"))
    assert plan.check_probe("5", "4") == "the probe answered '5', expected '4'"


def test_restarts():
    assert [plan.may_restart(deaths, 2) for deaths in (1, 2, 3)] == [True, True, False]
    assert not plan.may_restart(1, 0)


@pytest.mark.parametrize(
    ("uid", "parents", "nobody", "user"),
    [
        (1000, [(0o700, 1000)], 65534, None),
        (0, [(0o1777, 0), (0o755, 0)], 65534, "nobody"),
        (0, [(0o700, 0), (0o755, 0)], 65534, "root"),
        (0, [(0o700, 65534), (0o755, 0)], 65534, "nobody"),
        (0, [(0o755, 0)], None, "root"),
    ],
)
def test_user_of_the_server(uid, parents, nobody, user):
    assert plan.server_user(uid, parents, nobody) == user


@pytest.mark.parametrize("name", ["/etc/passwd", "a/../../b", "..", "a\0b"])
def test_tar_members_stay_below(name):
    assert plan.check_member(name, True, False)
    assert plan.check_member("calib/x.MYD", True, False) is None
    assert plan.check_member("calib/link", False, False)


COLUMNS = ("Host", "Db", "User", "Select_priv", "Insert_priv")


def tables(**changes):
    rows = {
        "global_priv": (("%", "calib", '{"access":0}'),),
        "db": (("%", "calib", "calib", "Y", "N"),),
        "tables_priv": (),
        "columns_priv": (),
        "procs_priv": (),
        "proxies_priv": (),
        "roles_mapping": (),
    }
    return {**rows, **changes}


def test_the_one_account_is_accepted():
    assert check_accounts(tables(), COLUMNS) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"global_priv": (("localhost", "root", "{}"), ("%", "calib", "{}"))}, "account root@localhost"),
        ({"global_priv": (("%", "calib", '{"access":1}'),)}, "global privileges"),
        ({"global_priv": (("%", "calib", "{"),)}, "cannot be read"),
        ({"global_priv": ()}, "is missing"),
        ({"db": (("%", "calib", "calib", "Y", "Y"),)}, "Insert_priv, Select_priv"),
        ({"db": (("%", "mysql", "calib", "Y", "N"),)}, "on mysql"),
        ({"db": ()}, "is missing"),
        ({"tables_priv": (("%", "calib", "calib", "t"),)}, "mysql.tables_priv grants"),
        ({"proxies_priv": (("%", "calib"),)}, "mysql.proxies_priv grants"),
    ],
)
def test_other_accounts_are_refused(changes, words):
    assert words in str(check_accounts(tables(**changes), COLUMNS))


def test_copies_are_counted_from_the_snapshot_itself():
    assert [plan.copy_path("/s/calib.tar", number) for number in (0, 1, 2)] == [
        "/s/calib.tar",
        "/s/calib.tar.2",
        "/s/calib.tar.3",
    ]


@pytest.mark.parametrize(
    ("free_gib", "cache_mib"), [(None, 64), (64, 64), (4, 64), (2, 32), (1, 16), (0.5, 8), (0.1, 8)]
)
def test_the_query_cache_is_sized_to_the_memory_of_the_node(free_gib, cache_mib):
    found = plan.query_cache_mib(None if free_gib is None else int(free_gib * 2**30))
    assert found == cache_mib
    argv = plan.server_argv(["x"], None, "/n", None, None, found)
    assert f"--query-cache-size={cache_mib}M" in argv


@pytest.mark.parametrize(("runs", "cache_mib"), [(0, 64), (1, 64), (12, 64), (13, 0), (32, 0)])
def test_answers_are_kept_only_where_jobs_ask_for_the_same_runs(runs, cache_mib):
    found = plan.query_cache_mib(None, runs)
    assert found == cache_mib
    argv = plan.server_argv(["x"], None, "/n", None, None, found)
    assert f"--query-cache-type={int(cache_mib > 0)}" in argv


@pytest.mark.parametrize(
    ("slots", "connections", "waiting"), [(1, 80, 128), (32, 80, 128), (48, 112, 128), (128, 272, 272)]
)
def test_every_payload_of_a_node_has_two_connections(slots, connections, waiting):
    argv = plan.server_argv(["x"], None, "/n", None, None, slots=slots)
    assert f"--max-connections={connections}" in argv
    assert f"--back-log={waiting}" in argv


def room(path, free_mib, *facts):
    return plan.Room(path, "joined" in facts, "closed" not in facts, "noexec" in facts, free_mib * MIB)


@pytest.mark.parametrize(
    ("first", "second", "executes", "chosen"),
    [
        (room("/a", 900), room("/b", 900), True, "/a"),
        (room("/a", 300), room("/b", 900), True, "/b"),
        (room("/a", 900, "closed"), room("/b", 900), True, "/b"),
        (room("/a", 900, "noexec"), room("/b", 900), True, "/b"),
        (room("/a", 900, "noexec"), room("/b", 900), False, "/a"),
        (room("/a", 900), room("/b", 1, "joined"), True, "/b"),
        (room("/a", 0), room("/b", 0), True, "/a"),
    ],
)
def test_the_servers_files_go_where_they_are_else_where_space_rights_and_exec_allow_it(
    first, second, executes, chosen
):
    assert plan.choose_room([first, second], 300 * MIB, executes) == chosen
