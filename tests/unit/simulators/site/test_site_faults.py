"""Words of `simsite fault` and --speed: what they become, and what is refused before anybody is asked."""

from __future__ import annotations

import pytest

from simulators.cli import main
from simulators.panda.rules import PandaTimes
from simulators.panda.service import BadFault, Fault, parse_fault
from simulators.panda.settings import BadSettings, parse_settings
from simulators.site.control import NoSite, find_runtime, parse_request
from simulators.site.faults import FAULTS, PANDA, TORQUE, UnknownFault, plan_fault
from simulators.site.up import DEFAULT, hasten, pilot_config
from simulators.site.workload import Batch, render_job
from simulators.torque.site import TorqueSite
from simulators.torque.steering import ORDERS

TARGETS = {
    "NODE": "nid00001",
    "NODE[-NODE]": "nid00001-nid00002",
    "COMMAND|PATH": "qstat",
    "PATH": "acquire_jobs",
    "torque|panda": TORQUE,
    "panda": PANDA,
    "BATCH_ID": "1.sim",
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_becomes_orders_that_a_server_knows(name: str) -> None:
    words = FAULTS[name].words
    for target in {TARGETS.get(words.partition(" ")[0]), *((PANDA,) if words.startswith(TORQUE) else ())}:
        for order in plan_fault(name, target, None):
            if order.server == TORQUE:
                assert order.body["verb"] in ORDERS
            else:
                parse_fault(dict(order.body))


def test_a_command_goes_to_the_batch_server_and_any_other_text_is_a_path_of_panda() -> None:
    assert [order.server for order in plan_fault("hang", "qstat", 5)] == [TORQUE]
    (order,) = plan_fault("lose-answer", "update_jobs_bulk", 2)
    fault = parse_fault(dict(order.body))
    assert isinstance(fault, Fault)
    assert (order.server, fault.count, fault.path.pattern) == (PANDA, 2, "update_jobs_bulk")


@pytest.mark.parametrize(
    ("name", "target", "amount"),
    [
        ("nonsense", None, None),
        ("node-dies", None, None),
        ("mend", "all", None),
        ("outage", "tape", None),
        ("failing", "panda", 1.5),
        ("losing", "panda", 1.5),
        ("losing", "torque", 0.1),
        ("hang", "qstat", -1.0),
        ("hang", "qstat", float("nan")),
    ],
)
def test_words_that_make_no_sense_are_refused(name: str, target: str | None, amount: float | None) -> None:
    with pytest.raises(UnknownFault):
        plan_fault(name, target, amount)


@pytest.mark.parametrize(
    "body", [{"name": "outage", "seconds": 0}, {"name": "failing", "share": 2}, {"name": "x"}]
)
def test_panda_refuses_an_order_that_makes_no_sense(body: dict[str, object]) -> None:
    with pytest.raises(BadFault):
        parse_fault(body)


@pytest.mark.parametrize(
    "request_",
    [{}, {"verb": "stop"}, {"verb": "fault", "name": "mend", "amount": "5"}, {"verb": "fault", "name": 3}],
)
def test_the_control_socket_takes_faults_only(request_: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        parse_request(1, request_)


def test_speed_divides_the_servers_own_times_and_leaves_walltimes() -> None:
    site = hasten(
        {"panda": {"adder_s": 8.0}, "torque": {"keep_completed_s": 60, "walltime_poll_s": 45.0}}, 4.0
    )
    times = parse_settings(site["panda"]).times
    assert (times.adder_s, times.heartbeat_max_s) == (2.0, PandaTimes().heartbeat_max_s / 4)
    torque = TorqueSite.model_validate(site["torque"])
    assert (torque.keep_completed_s, torque.scheduler_interval_s, torque.walltime_poll_s) == (
        15.0,
        0.05,
        45.0,
    )
    assert hasten(DEFAULT, 1.0)["torque"]["nodes"] == 4


def test_a_pace_per_job_is_a_setting_in_seconds() -> None:
    assert parse_settings({"per_job_s": 0.019}).per_job_s == 0.019
    with pytest.raises(BadSettings):
        parse_settings({"per_job_s": -1})


def test_the_configuration_names_this_sites_addresses(tmp_path) -> None:
    text = pilot_config("http://127.0.2.1:5", tmp_path, {"server_name": "sim", "bin": "/x/bin"})
    assert "http://127.0.2.1:5" in text and "/x/bin/qsub" in text and "@" not in text


def test_the_same_number_with_another_attempt_is_the_same_work() -> None:
    first, second = (render_job(Batch("t", 1, "Q", "/out"), 7, attempt) for attempt in (1, 2))
    key = "PRODSYS_WORK=t.7 "
    texts = [next(value for value in job if str(value).startswith("PRODSYS_WORK")) for job in (first, second)]
    assert all(text.startswith(key) for text in texts) and first != second


def test_a_site_is_found_only_where_there_is_exactly_one(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("SIMSITE_RUNTIME", raising=False)
    with pytest.raises(NoSite, match="no site runs"):
        find_runtime(None)
    for name in ("simsite-a", "simsite-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "control.sock").touch()
    with pytest.raises(NoSite, match="2 sites"):
        find_runtime(None)
    (tmp_path / "simsite-b/control.sock").unlink()
    assert find_runtime(None) == tmp_path / "simsite-a"


def test_exit_codes_of_fault(tmp_path, capsys) -> None:
    assert main(["fault", "--list"]) == 0
    assert "node-dies NODE" in capsys.readouterr().out
    assert main(["fault", "nonsense"]) == 2
    assert main(["fault", "mend", "--runtime", str(tmp_path)]) == 1
    assert main(["jobs", "0", "--runtime", str(tmp_path)]) == 2
    assert main(["jobs", "1", "--runtime", str(tmp_path)]) == 1
