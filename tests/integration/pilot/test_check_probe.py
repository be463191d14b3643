"""`pilot check --probe` where what is submitted starts on this machine: real agent file, real links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
site: here
state_dir: {base}/state
shared_dir: {base}/shared
output_root: {base}/out
node: {{python: {python}, local_dir: $NODE_LOCAL}}
launcher: {{kind: local}}
batch: {{server: sim, commands: {{submit: "{base}/qsub", list: "{base}/qstat", cancel: "{base}/qdel"}}}}
servers: [{{name: panda, url: "http://127.0.0.1:9/", dialect: v1, timeout_s: 11}}]
queues: [{{name: long, server: panda, panda_queue: Q, batch_queue: normal, nodes: 2, slots: 1}}]
"""
# The last word of qsub's is the script; its output goes where the directive says.
RUNS = """#!/bin/sh
for script; do :; done
sh "$script" > "$(dirname "$script")/batch.out" 2>&1 < /dev/null &
echo 7.sim
"""


def site(base: Path, qsub: str) -> Path:
    for name, text in {
        "qsub": qsub,
        "qstat": "#!/bin/sh\nexit 1\n",
        "qdel": f'#!/bin/sh\necho "$@" > {base}/ended\n',
    }.items():
        (base / name).write_text(text)
        (base / name).chmod(0o755)
    (base / "local").mkdir()
    path = base / "pilot.yaml"
    path.write_text(CONFIG.format(base=base, python=sys.executable))
    return path


def probe(config: Path, *words: str) -> dict[str, str]:
    """What was said about each thing that the probe looks at."""
    argv = [sys.executable, "-m", "pilot", "check", "-c", str(config), "--probe", *words]
    node = {**os.environ, "NODE_LOCAL": str(config.parent / "local")}
    done = subprocess.run(argv, env=node, capture_output=True, text=True, timeout=300, check=False)
    lines = [line for line in done.stdout.splitlines() if " probe: " in line]
    assert lines, done.stderr
    return {line[5:].partition(" on ")[0]: line for line in lines}


def test_a_batch_job_tells_what_a_node_has_and_sees_and_nothing_of_it_stays(tmp_path: Path) -> None:
    said = probe(site(tmp_path, RUNS))
    assert len(said) == 6
    assert all(line.startswith("ok ") for line in said.values()), said
    link = next(line for name, line in said.items() if "link(2)" in name)
    assert "of 200 names" in link and "ran on this very host" in link
    assert (tmp_path / "ended").read_text() == "7.sim\n"
    assert list((tmp_path / "shared/probes").iterdir()) == []
    assert list((tmp_path / "local").iterdir()) == []


@pytest.mark.parametrize(
    ("qsub", "says"),
    [
        ("#!/bin/sh\necho 'qsub: Unauthorized Request' >&2\nexit 159\n", "Unauthorized Request"),
        ("#!/bin/sh\necho 7.sim\n", "7.sim has not started in 2 s"),
    ],
)
def test_a_probe_that_does_not_run_says_why_and_leaves_nothing(tmp_path: Path, qsub: str, says: str) -> None:
    (line,) = probe(site(tmp_path, qsub), "--wait", "2").values()
    assert line.startswith("FAIL") and says in line
    assert list((tmp_path / "shared/probes").iterdir()) == []
