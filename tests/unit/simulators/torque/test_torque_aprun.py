"""aprun's options, placement and last words."""

from __future__ import annotations

import pytest

from simulators.torque.aprun import (
    Application,
    AprunOptions,
    RankEnd,
    final_words,
    parse_aprun,
    place_ranks,
)
from simulators.torque.request import Reply


def parse(line: str) -> AprunOptions | Reply:
    return parse_aprun(line.split(), 32)


@pytest.mark.parametrize(
    ("line", "ranks", "per_node", "depth"),
    [
        ("-n 1 -N 1 -d 32 -cc none -b agent --node 0", 1, 1, 32),
        ("-n 1 -N 1 -d 32 -cc none -b -- agent --node 0", 1, 1, 32),
        ("-b -n 512 -N 32 -d 1 -cc cpu agent --node 0", 512, 32, 1),
        ("-n512 -N32 agent --node 0", 512, 32, 1),
        ("-n 64 -d 2 agent --node 0", 64, 16, 2),
        ("agent --node 0", 1, 1, 1),
    ],
)
def test_accepted_forms(line, ranks, per_node, depth):
    options = parse(line)
    assert isinstance(options, AprunOptions)
    assert (options.argv, options.ranks, options.per_node, options.depth) == (
        ("agent", "--node", "0"),
        ranks,
        per_node,
        depth,
    )


@pytest.mark.parametrize(
    "line",
    [
        "-Z a",
        "--nodes=2 a",
        "-n",
        "-n 0 a",
        "-n x a",
        "-N 33 -n 33 a",
        "-N 8 -d 8 -n 8 a",
        "-N 2 -n 1 a",
        "-n 1",
        "",
        "-B -n 1 a",
        "-e NOVALUE a",
    ],
)
def test_unknown_and_contradictory_options_are_refused(line):
    reply = parse(line)
    assert isinstance(reply, Reply) and reply.exit_code == 1 and reply.stderr.startswith("aprun: ")


def test_variables_of_e_are_handed_on_in_order():
    options = parse("-e A=1 -e B=x=y a")
    assert isinstance(options, AprunOptions) and options.environment == (("A", "1"), ("B", "x=y"))


def application(ranks: int = 3) -> Application:
    options = parse(f"-n {ranks} -N 1 a")
    assert isinstance(options, AprunOptions)
    nodes = place_ranks(options, [7, 8, 9])
    assert not isinstance(nodes, Reply)
    return Application(5, "1.sim", options, nodes)


def test_ranks_are_packed_in_the_order_of_free_nodes():
    options = parse("-n 5 -N 2 a")
    assert place_ranks(options, [3, 4, 6, 9]) == {0: 3, 1: 3, 2: 4, 3: 4, 4: 6}
    refusal = place_ranks(options, [3, 4])
    assert isinstance(refusal, Reply) and refusal.exit_code == 1 and refusal.stdout == ""


def test_failing_rank_gives_its_code_and_ends_nobody():
    app = application()
    assert [app.end(rank, RankEnd(code, None)) for rank, code in ((0, 0), (1, 3), (2, 0))] == [False] * 3
    assert app.over
    reply = final_words(app, "now", None)
    assert reply.exit_code == 3 and "Application 5 exit codes: 3\n" in reply.stdout
    assert reply.stdout.splitlines()[-1].startswith("Application 5 resources: utime ~0s, stime ~0s, Rss ~")


def test_rank_ended_by_a_signal_ends_all_others():
    app = application()
    assert app.end(1, RankEnd(None, 9)) is True
    assert app.left() == {7, 9}
    assert app.end(0, RankEnd(None, 9)) is False
    app.end(2, RankEnd(None, 9))
    reply = final_words(app, "now", None)
    assert reply.exit_code == 137
    assert "[NID 00008]" in reply.stderr and "PE RANK 1 exit signal Killed" in reply.stderr


def test_aprun_that_was_told_to_end_says_no_more_than_that():
    app = application(1)
    app.end(0, RankEnd(None, 15))
    reply = final_words(app, "now", 15)
    assert (reply.exit_code, reply.stderr) == (143, "")


def test_quiet_prints_no_last_line():
    options = parse("-q -n 1 a")
    assert isinstance(options, AprunOptions)
    app = Application(1, "1.sim", options, {0: 1})
    app.end(0, RankEnd(0, None))
    assert final_words(app, "now", None) == Reply()
