"""Fixtures for tests of the node side: one agent file for all, one bundle for each."""

import sys
from pathlib import Path

import pytest

from pilot.multijob.agentfile import build_agent_file

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "caldb")]
from nodekit import Bundle  # noqa: E402 (found by the line above)


@pytest.fixture(scope="session")
def agent_file(tmp_path_factory):
    return build_agent_file(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def bundle(tmp_path, agent_file):
    made = Bundle(tmp_path, agent_file)
    yield made
    made.end_agents()
