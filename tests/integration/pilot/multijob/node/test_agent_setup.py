"""A real agent runs set-up scripts once each for a node, in a clean shell; a bad one costs its own jobs only."""

from __future__ import annotations

import os

import pytest
from nodekit import await_true, processes_with

SHOW = "env > o; echo End of Job"


def script(bundle, text, name="setup.sh"):
    path = bundle.root / "soft $(touch owned)" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def ran(bundle):
    return (bundle.root / "ran").read_text().splitlines()


def show(bundle, setup, output="o", **environment):
    return bundle.job(
        SHOW.replace("> o", f"> {output}"), (output,), setup=setup, environment=dict(environment)
    )


def environment_of(bundle, output="o"):
    return dict(line.split("=", 1) for line in (bundle.out / output).read_text().splitlines() if "=" in line)


def test_each_script_runs_once_for_all_jobs_that_name_it(bundle):
    say = f"echo $0 $# {{name}} >> {bundle.root}/ran; export WHO={{name}}; echo noise\n"
    first = script(bundle, say.format(name="one"), "one.sh")
    second = script(bundle, say.format(name="two"), "two.sh")
    for number, path in enumerate((first, second, first, None, second, first)):
        show(bundle, path, f"o{number}")
    lines = bundle.run_agent()
    assert sorted(ran(bundle)) == ["setup 0 one", "setup 0 two"]
    found = [environment_of(bundle, f"o{number}").get("WHO") for number in range(6)]
    assert found == ["one", "two", "one", None, "two", "one"]
    assert sorted(line["script"] for line in lines if line["kind"] == "setup_ready") == [first, second]
    assert not (bundle.root / "owned").exists()
    assert list(bundle.local.iterdir()) == []


def test_site_then_script_then_experiment_then_job_then_agent(bundle):
    names = ("SITE", "SCRIPT", "EXPERIMENT", "JOB", "PANDA_ID")
    bundle.extra["environment"] = {"PATH": os.defpath, "GONE": "x", **dict.fromkeys(names, "site")}
    lines = [f"export {name}=script" for name in names[1:]]
    path = script(bundle, "\n".join([*lines, 'export PATH="$PWD/bin:$PATH"', "unset GONE", "LOCAL=x"]))
    bundle.extra["experiment"] = dict.fromkeys(names[2:], "experiment")
    job = show(bundle, path, **dict.fromkeys(names[3:], "job"))
    bundle.run_agent()
    found = environment_of(bundle)
    assert [found[name] for name in names] == ["site", "script", "experiment", "job", str(job)]
    assert found["PATH"] == f"{os.path.dirname(path)}/bin:{os.defpath}", (
        "the script stands in its own directory"
    )
    assert "GONE" not in found
    assert "LOCAL" not in found
    assert found["HOME"] == found["TMPDIR"] != str(bundle.root), "the work directory is the payload's own"
    assert found["HOME"].endswith(f"/{job}.1")


def test_a_shell_is_clean_and_any_value_survives(bundle, monkeypatch):
    monkeypatch.setenv("SECRET", "of the launcher")
    profile = bundle.root / "profile"
    profile.write_text("export FROM_PROFILE=1\n")
    monkeypatch.setenv("BASH_ENV", str(profile))
    path = script(
        bundle,
        'export SEEN="$SECRET$BASH_ENV"; export ODD=$\'a\\nb=c "$x" \\xff\'; f() { :; }; export -f f\n',
    )
    check = 'test "$(printf %s "$ODD" | od -An -tx1 | tr -d " \\n")" = 610a623d63202224782220ff || exit 1'
    job = bundle.job(f'{check}; test -z "$SEEN$FROM_PROFILE" && echo End of Job', setup=path)
    bundle.run_agent()
    end = bundle.end_of(job)
    assert (end["exit_code"], end["marker"]) == (0, True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo 'no \x1b mount' >&2; false\n", "exit code 1"),
        ("exit 3\n", "exit code 3"),
        ("exit 0\n", "it left no environment"),
        ("kill -9 $$\n", "signal 9"),
        ("syntax ( error\n", "exit code"),
        (None, "exit code 1"),
        (
            "export X=$(head -c 120000 /dev/zero | tr '\\0' x); for i in 0 1 2 3 4 5 6 7 8 9; do export X$i=$X; done\n",
            "bytes",
        ),
    ],
)
def test_a_script_that_fails_gives_back_the_jobs_that_need_it_and_no_other(bundle, text, reason):
    good = script(bundle, "export GOOD=1\n", "good.sh")
    bad = script(bundle, text or "", "bad.sh")
    if text is None:
        os.unlink(bad)
    back = [show(bundle, bad, f"b{number}") for number in range(3)]
    runs = [show(bundle, good, "g"), show(bundle, None, "n")]
    lines = bundle.run_agent()
    [line] = [line for line in lines if line["kind"] == "given_back"]
    assert line["jobs"] == [[job, 1] for job in back]
    assert line["reason"].startswith(f"set-up script {bad}: ")
    assert reason in line["reason"]
    [failed] = [line for line in lines if line["kind"] == "setup_failed"]
    assert failed["script"] == bad
    if "mount" in (text or ""):
        assert failed["log"] == "no \\x1b mount\\n"
    assert [bundle.end_of(job)["exit_code"] for job in runs] == [0, 0]
    assert not [line for line in lines if line.get("panda_id") in back]
    assert lines[-1]["reason"] == "no set-up"
    assert list(bundle.local.iterdir()) == []


def test_a_script_that_hangs_is_ended_in_its_time_while_others_jobs_run(bundle):
    bundle.limits["setup_s"] = 0.5
    up = bundle.root / "up"
    bad = script(bundle, f"touch {up}; sleep 83.5 & sleep 83.5\n", "bad.sh")
    good = script(bundle, "export GOOD=1\n", "good.sh")
    back, late = show(bundle, bad, "b"), show(bundle, good, "g")
    other = bundle.job(f"while [ ! -e {up} ]; do sleep 0.01; done; echo End of Job")
    bundle.run_agent()
    [line] = bundle.of_kind("given_back")
    assert (line["jobs"], "did not end in 0 s" in line["reason"]) == ([[back, 1]], True)
    assert bundle.end_of(other)["exit_code"] == bundle.end_of(late)["exit_code"] == 0
    assert not processes_with("83.5")


def test_what_a_script_leaves_running_ends_with_the_agent_and_harms_no_job(bundle):
    path = script(bundle, "setsid sleep 84.5 >/dev/null 2>&1 &\nexport DAEMON=$!\n")
    jobs = [show(bundle, path, f"o{number}") for number in range(4)]
    bundle.run_agent()
    assert all(bundle.end_of(job)["exit_code"] == 0 for job in jobs)
    assert not processes_with("84.5")


def test_an_agent_that_is_asked_to_end_during_a_script_gives_all_back(bundle):
    up = bundle.root / "up"
    job = show(bundle, script(bundle, f"touch {up}; sleep 85.5\n"))
    agent = bundle.start_agent()
    await_true(up.exists)
    agent.terminate()
    agent.communicate(timeout=20)
    assert bundle.of_kind("given_back")[0]["jobs"] == [[job, 1]]
    assert bundle.lines()[-1]["reason"] == "terminated"
    assert not processes_with("85.5")


def test_no_script_runs_for_a_list_that_needs_none(bundle):
    bundle.job("echo End of Job")
    lines = bundle.run_agent()
    assert not [line for line in lines if line["kind"].startswith("setup")]
