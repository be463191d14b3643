"""A site document: every mistake is named with file, field, what was expected and what was found."""

from __future__ import annotations

import pytest

from simulators.torque.site import SiteError, TorqueSite, parse_site


def test_defaults_are_the_demo_s_machine():
    site = parse_site("{}", "f.json")
    assert (site.nodes, site.slots, site.server_name, site.refuse_root) == (4, 4, "sim", False)
    assert site.node_name(3) == "nid00003" and site.node_address(3) == "127.0.1.3"
    assert site.node_number("nid00003") == 3 == site.node_number("3")
    assert site.node_number("nid00005") is None and site.node_number("x") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["f.json", "line 1"]),
        ("[]", ["f.json", "object", "list"]),
        ('{"nodse": 4}', ["f.json", "nodse", "unknown key"]),
        ('{"nodes": 0}', ["f.json", "nodes", "greater", "0"]),
        ('{"nodes": "many"}', ["f.json", "nodes", "integer", "many"]),
        (
            '{"queues": {"normal": {"walltime_max": 5}}}',
            ["f.json", "queues.normal.walltime_max", "unknown key"],
        ),
        ('{"default_queue": "fast"}', ["f.json", "default_queue", "normal"]),
        ('{"first_address": "10.0.0.1"}', ["f.json", "first_address", "127.0.0.0/8", "10.0.0.1"]),
    ],
)
def test_mistakes_are_named(text, words):
    with pytest.raises(SiteError) as caught:
        parse_site(text, "f.json")
    for word in words:
        assert word in str(caught.value)


def test_addresses_of_all_nodes_stay_on_loopback():
    with pytest.raises(SiteError):
        parse_site('{"first_address": "127.255.255.254", "nodes": 5}', "f.json")
    assert TorqueSite(nodes=300).node_address(300) == "127.0.2.44"
