"""The agent file on other interpreters that are found: 3.8 is the oldest that it must run on."""

from __future__ import annotations

import subprocess

import pytest
from nodekit import interpreters

from pilot.multijob.agentfile import build_agent_file, node_sources

OTHERS = interpreters()
pytestmark = pytest.mark.skipif(not OTHERS, reason="no other Python 3.8 or later was found")


def test_every_module_imports_on_other_interpreters(tmp_path):
    path = build_agent_file(tmp_path)
    names = [name[:-3].replace("/", ".") for name in node_sources()]
    code = f"import runpy; runpy.run_path({str(path)!r})\n" + "\n".join(f"import {name}" for name in names)
    for interpreter in OTHERS:
        done = subprocess.run(
            [interpreter, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{interpreter}: {done.stderr}"


@pytest.mark.parametrize("python", OTHERS[:1] + OTHERS[-1:])
def test_agent_works_a_job(bundle, python):
    bundle.python = python
    job = bundle.job("echo End of Job; echo x > o; (setsid sleep 66.5 &)", ("o",))
    lines = bundle.run_agent()
    assert bundle.end_of(job)["files"][0]["placed"]
    assert lines[-1]["reason"] == "list worked"
    assert lines[-1]["left_behind"] == 0


def test_a_traceback_of_a_node_names_file_and_line(tmp_path):
    path = build_agent_file(tmp_path)
    code = (
        f"import runpy; runpy.run_path({str(path)!r})\n"
        "from pilot.multijob.node.manifest import parse_manifest\nparse_manifest('{}')\n"
    )
    done = subprocess.run([OTHERS[0], "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert 'pilot/multijob/node/manifest.py", line ' in done.stderr
