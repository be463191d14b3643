"""A real agent makes inputs available by each of the site's methods; a bad one costs its own job only."""

from __future__ import annotations

import json
import os
import stat
import zlib

import pytest
from nodekit import await_true, processes_with

# What must not be taken for more than a name by anything on the way.
NAME = "cdr $(touch owned);'{target}' &.raw"
CONTENT = b"raw data\n"
SUM = f"{zlib.adler32(CONTENT):08x}"


def raw(bundle, name=NAME, content=CONTENT):
    path = bundle.root / "raw" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return str(path)


def reader(bundle, *paths, output="o", **more):
    """A job that copies what it reads to its output, by name and by the path that it was told."""
    argv = ["sh", "-c", 'cat "$@" > "$OUT"; echo "$PRODSYS_INPUTS" >> "$OUT"; pwd; echo End of Job', "sh"]
    environment = {"PRODSYS_INPUTS": ":".join(paths), "OUT": output}
    inputs = [{"path": path, **more} for path in paths]
    return bundle.job("", (output,), argv=[*argv, *paths], environment=environment, inputs=inputs)


def fetcher(bundle, script, **inputs):
    """The site's command: a script with the source and the target as its arguments."""
    tool = bundle.root / "tool"
    tool.write_text("#!/bin/sh\n" + script)
    tool.chmod(0o755)
    command = [str(tool), "from={source}", "{target}"]
    bundle.extra["inputs"] = {"method": "command", "command": command, **inputs}
    return tool


COPY = 'cp "${1#from=}" "$2"\n'


def placed(bundle, panda_id):
    end = bundle.end_of(panda_id)
    return end["exit_code"] == 0 and all(item["placed"] for item in end["files"])


def output(bundle, name="o"):
    return (bundle.out / name).read_text().splitlines()


def test_in_place_a_payload_reads_the_path_that_its_job_names(bundle):
    path = raw(bundle)
    job = reader(bundle, path)
    bundle.run_agent()
    assert placed(bundle, job)
    assert output(bundle) == ["raw data", path]


@pytest.mark.parametrize("method", ["link", "copy", "command"])
def test_by_the_other_methods_it_reads_a_file_of_that_name_in_its_work_directory(bundle, method):
    path = raw(bundle)
    if method == "command":
        fetcher(bundle, COPY)
    else:
        bundle.extra["inputs"] = {"method": method}
    job = reader(bundle, path, size=len(CONTENT), adler32=SUM)
    bundle.run_agent()
    assert placed(bundle, job)
    content, told = output(bundle)
    assert content == "raw data"
    assert told.startswith(str(bundle.local))
    assert told.endswith(f"/{job}.1/{NAME}")
    assert not (bundle.root / "owned").exists()
    assert list(bundle.local.iterdir()) == []
    assert (bundle.root / "raw" / NAME).read_bytes() == CONTENT, "the input itself is never touched"


def test_a_payload_that_writes_into_its_copy_harms_neither_source_nor_neighbour(bundle):
    path = raw(bundle)
    bundle.extra["inputs"] = {"method": "copy"}
    bundle.slots = 1
    script = 'test -w "$1" && test "$(id -u)" != 0 && echo spoiled > "$1"; rm -f "$1"; echo End of Job'
    environment = {"PRODSYS_INPUTS": path}
    inputs = [{"path": path}]
    bundle.job("", argv=["sh", "-c", script, "sh", path], environment=environment, inputs=inputs)
    job = reader(bundle, path)
    bundle.run_agent()
    assert placed(bundle, job)
    assert output(bundle)[0] == "raw data"


@pytest.mark.parametrize("method", ["in place", "link", "copy"])
@pytest.mark.parametrize("fault", ["missing", "empty", "pipe", "size"])
def test_a_bad_input_fails_its_own_job_alone_and_that_never_started(bundle, method, fault):
    bundle.extra["inputs"] = {"method": method}
    bundle.limits["input_tries"] = 1
    path = raw(bundle, "bad", b"" if fault == "empty" else CONTENT)
    if fault in ("missing", "pipe"):
        os.unlink(path)
    if fault == "pipe":
        os.mkfifo(path)
    good = [reader(bundle, raw(bundle, "good"), output=f"g{number}") for number in range(2)]
    bad = reader(bundle, path, output="bad.out", **({"size": 99} if fault == "size" else {}))
    good += [reader(bundle, raw(bundle, "good"), output=f"g{number}") for number in range(2, 4)]
    lines = bundle.run_agent()
    end = bundle.end_of(bad)
    assert end["ended_by"] == ("stage-in" if fault == "size" else "no-input")
    assert path in end["trouble"]
    assert bad not in [line["panda_id"] for line in lines if line["kind"] == "job_started"]
    assert all(placed(bundle, job) for job in good)


def test_a_wrong_checksum_never_reaches_a_payload(bundle):
    bundle.limits["input_tries"] = 1
    bundle.extra["inputs"] = {"method": "copy"}
    job = reader(bundle, raw(bundle), adler32="00000001")
    bundle.run_agent()
    end = bundle.end_of(job)
    assert end["ended_by"] == "stage-in"
    assert f"adler32: found {SUM}, expected 00000001" in end["trouble"]
    assert not bundle.out.exists()


def test_a_file_comes_once_to_a_node_however_many_jobs_need_it(bundle):
    log = bundle.root / "log"
    fetcher(bundle, COPY + f'echo "$1" >> {log}\n')
    shared = raw(bundle, "shared")
    jobs = [reader(bundle, shared, raw(bundle, f"own{n}"), output=f"o{n}") for n in range(6)]
    bundle.slots = 3
    bundle.run_agent()
    assert all(placed(bundle, job) for job in jobs)
    came = log.read_text().splitlines()
    assert len(came) == len(set(came)) == 7


def test_only_so_many_commands_run_at_a_time_and_jobs_without_inputs_are_not_held_up(bundle):
    bundle.limits.update(inputs_at_once=2)
    bundle.slots = 5
    busy, most = bundle.root / "busy", bundle.root / "most"
    busy.mkdir()
    fetcher(bundle, f"touch {busy}/$$; ls {busy} | wc -l >> {most}; sleep 0.2; rm {busy}/$$\n" + COPY)
    jobs = [reader(bundle, raw(bundle, f"r{n}"), output=f"o{n}") for n in range(4)]
    quick = bundle.job("echo End of Job")
    lines = bundle.run_agent()
    assert all(placed(bundle, job) for job in jobs)
    assert max(map(int, most.read_text().split())) == 2
    ends = [line["panda_id"] for line in lines if line["kind"] == "job_ended"]
    assert ends[0] == quick


def test_a_command_that_hangs_is_ended_with_all_that_it_started_and_fails_its_job_only(bundle):
    bundle.limits.update(inputs_at_once=1, input_try_s=0.3, input_tries=1)
    fetcher(bundle, 'case "$1" in *hang) sleep 81.5; esac\n' + COPY)
    bad = reader(bundle, raw(bundle, "hang"), output="bad.out")
    good = reader(bundle, raw(bundle, "good"), output="good.out")
    bundle.run_agent()
    end = bundle.end_of(bad)
    assert (end["ended_by"], "did not end in 0 s" in end["trouble"]) == ("stage-in", True)
    assert placed(bundle, good)
    assert not processes_with("81.5")


def test_a_command_that_fails_says_why_and_sees_the_sites_environment_only(bundle, monkeypatch):
    monkeypatch.setenv("SECRET", "of the launcher")
    bundle.limits.update(input_tries=1)
    fetcher(bundle, 'echo "no route $SECRET\x1b[2J" >&2; exit 51\n')
    job = reader(bundle, raw(bundle))
    bundle.run_agent()
    trouble = bundle.end_of(job)["trouble"]
    assert "tool ended with exit code 51: no route \\x1b[2J\\n" in trouble


def test_a_command_that_cannot_be_started_is_the_nodes_fault(bundle):
    bundle.limits.update(input_tries=1)
    fetcher(bundle, COPY).unlink()
    job = reader(bundle, raw(bundle))
    bundle.run_agent()
    end = bundle.end_of(job)
    assert (end["ended_by"], "cannot be started" in end["trouble"]) == ("stage-in", True)


def test_an_agent_that_is_asked_to_end_while_inputs_come_gives_their_jobs_back(bundle):
    up = bundle.root / "up"
    fetcher(bundle, f"touch {up}; exec sleep 82.5\n")
    jobs = [reader(bundle, raw(bundle, f"r{n}"), output=f"o{n}") for n in range(3)]
    agent = bundle.start_agent()
    await_true(up.exists)
    agent.terminate()
    agent.communicate(timeout=20)
    back = [item for line in bundle.of_kind("given_back") for item in line["jobs"]]
    assert sorted(back) == [[job, 1] for job in jobs]
    assert bundle.of_kind("job_ended") == bundle.of_kind("job_started") == []
    assert not processes_with("82.5")
    assert list(bundle.local.iterdir()) == []


def test_a_job_that_is_ended_while_its_input_comes_is_given_back_and_the_next_one_runs(bundle):
    bundle.slots = 1
    go, up = bundle.root / "go", bundle.root / "up"
    fetcher(
        bundle, f'case "$1" in *slow) touch {up}; while [ ! -e {go} ]; do sleep 0.02; done; esac\n' + COPY
    )
    job = reader(bundle, raw(bundle, "slow"), output="slow.out")
    other = reader(bundle, raw(bundle, "good"), output="good.out")
    agent = bundle.start_agent()
    await_true(up.exists)
    temp = bundle.dir / "commands.tmp"
    temp.write_text(json.dumps({"serial": 1, "end": [{"panda_id": job, "attempt_nr": 1}]}))
    temp.rename(bundle.dir / "commands.json")
    await_true(lambda: bundle.of_kind("given_back"))
    go.touch()
    agent.communicate(timeout=20)
    assert bundle.of_kind("given_back")[0]["jobs"] == [[job, 1]]
    assert placed(bundle, other)
    assert not (bundle.out / "slow.out").exists()


def test_copies_of_one_node_stay_below_their_space(bundle):
    bundle.limits.update(inputs_max_mib=2)
    bundle.extra["inputs"] = {"method": "copy"}
    bundle.slots = 4
    paths = [raw(bundle, f"r{n}", bytes(900_000)) for n in range(5)]
    script = "ls -l $TMPDIR/../input.* | grep -c input > $OUT; sleep 0.1; echo End of Job"
    for number, path in enumerate(paths):
        environment = {"PRODSYS_INPUTS": path, "OUT": f"o{number}"}
        bundle.job(script, (f"o{number}",), environment=environment, inputs=[{"path": path}])
    big = reader(bundle, raw(bundle, "big", bytes(3_000_000)), output="big.out")
    bundle.run_agent()
    assert max(int((bundle.out / f"o{number}").read_text()) for number in range(5)) == 2
    assert "do not fit into 2 MiB" in bundle.end_of(big)["trouble"]


def test_a_copy_is_not_writable(bundle):
    bundle.extra["inputs"] = {"method": "copy"}
    path = raw(bundle)
    script = 'stat -L -c %a "$1" > o; echo End of Job'
    inputs, environment = [{"path": path}], {"PRODSYS_INPUTS": path}
    argv = ["sh", "-c", script, "sh", path]
    bundle.job("", ("o",), argv=argv, environment=environment, inputs=inputs)
    bundle.run_agent()
    assert not int(output(bundle)[0], 8) & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
