"""Catalogue lines -> jobs, or one sentence per problem."""

import pytest

from prodsys_core.catalogue import BadSource, parse_catalogue, plan_from_files, plan_from_runs

GOOD = """# run file events
274495 cdr11001-274495.raw 300
274495 cdr11002-274495.raw 0

274496 cdr11001-274496.raw 20
"""


def entries():
    return parse_catalogue(GOOD, "c")


def test_runs_take_their_files_and_leave_empty_ones():
    plan = plan_from_runs([274495], entries())
    assert [(job.file, job.run, job.chunk, job.n_events) for job in plan.jobs] == [
        ("cdr11001-274495.raw", 274495, 11001, 300)
    ]
    assert plan.skipped == ("cdr11002-274495.raw",)


def test_run_without_lines_is_a_problem():
    assert plan_from_runs([274495, 1], entries()) == BadSource(("run 1 is not in the catalogue",))


def test_run_with_only_empty_files_is_a_problem():
    lines = parse_catalogue("5 cdr1-5.raw 0\n", "c")
    assert isinstance(plan_from_runs([5], lines), BadSource)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("274495 cdr11001-274495.raw", "found 2 words"),
        ("274495 x.raw 3", "found file name 'x.raw'"),
        ("1 cdr11001-274495.raw 3", "found run '1'"),
        ("274495 cdr11001-274495.raw -3", "found '-3' events"),
        ("274495 cdr11001-274495.raw 3e4", "found '3e4' events"),
        ("274495 ../cdr11001-274495.raw 3", "found file name"),
        ("274495 cdr11001-274495.raw \u0663", "events"),
    ],
)
def test_bad_line_is_named(line, words):
    problem = parse_catalogue(GOOD + line + "\n", "cat.txt")
    assert isinstance(problem, BadSource)
    assert problem.text.startswith("cat.txt:6: ")
    assert words in problem.text


def test_same_line_twice_is_one_file_and_another_count_is_a_problem():
    assert len(parse_catalogue(GOOD + "274495 cdr11001-274495.raw 300\n", "c")) == 3
    assert isinstance(parse_catalogue(GOOD + "274495 cdr11001-274495.raw 301\n", "c"), BadSource)


def test_same_chunk_under_two_names_is_a_problem():
    lines = parse_catalogue("5 cdr1-5.raw 3\n5 cdr01-5.raw 3\n", "c")
    assert "same chunk" in plan_from_runs([5], lines).text


def test_listed_file_must_be_in_the_catalogue_if_there_is_one():
    assert plan_from_files(["cdr11001-274496.raw"], entries()).jobs[0].n_events == 20
    assert isinstance(plan_from_files(["cdr11009-274496.raw"], entries()), BadSource)
    assert plan_from_files(["cdr11009-274496.raw"], None).jobs[0].n_events is None


def test_many_problems_are_cut():
    text = parse_catalogue("x\n" * 50, "c").text
    assert text.endswith("and 30 more")
