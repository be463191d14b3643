"""The adapter: what a runner reports becomes a value of the port; it asks no more than it has to."""

from __future__ import annotations

from pilot.batch import torque
from pilot.batch.cli import BatchCli, BatchCommands, BatchTimeouts
from pilot.command import Completed, NotStarted, TimedOut, TooMuchOutput
from pilot.ports import BatchId, CancelResult, Hole, Listing, Unavailable

EMPTY = '<?xml version="1.0"?>\n<Data></Data>\n'


class Script:
    """A runner that gives the prepared outcomes in order and keeps the calls."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.calls = []

    def __call__(self, argv, *, timeout_s, environment, cwd=None):
        self.calls.append((tuple(argv), timeout_s, dict(environment), cwd))
        return self.outcomes.pop(0)


def adapter(*outcomes, commands=None):
    script = Script(*outcomes)
    cli = BatchCli(torque, "bw", {"PATH": "/bin"}, commands, BatchTimeouts(300, 120, 110, 60), run=script)
    return cli, script


def test_submit_runs_qsub_in_the_script_s_directory():
    cli, script = adapter(Completed(0, "12.bw\n", "", 0.1))
    assert cli.submit("/shared/b/script.1.sh", "b.1") == BatchId("12.bw")
    argv = ("qsub", "-r", "n", "-N", "b.1", "/shared/b/script.1.sh")
    assert script.calls == [(argv, 300, {"PATH": "/bin"}, "/shared/b")]


def test_no_answer_in_time_is_unavailable_for_every_question():
    for ask in ("submit", "list", "cancel"):
        cli, _ = adapter(TimedOut(120, "", ""))
        answer = {
            "submit": lambda cli=cli: cli.submit("/s", "n"),
            "list": lambda cli=cli: cli.list_jobs(None),
            "cancel": lambda cli=cli: cli.cancel(BatchId("1.bw")),
        }[ask]()
        assert isinstance(answer, Unavailable) and "no answer" in answer.reason


def test_missing_executable_and_a_flood_are_unavailable():
    for outcome in (NotStarted("cannot start 'qstat': not found on PATH"), TooMuchOutput(10)):
        cli, _ = adapter(outcome)
        assert isinstance(cli.list_jobs(None), Unavailable)


def test_all_jobs_are_one_command_however_many_bundles_there_are():
    cli, script = adapter(Completed(0, EMPTY, "", 0.1))
    assert cli.list_jobs(None) == Listing("bw", ())
    assert [call[0] for call in script.calls] == [("qstat", "-x")]


def test_ids_are_asked_singly_and_unknown_ones_are_named():
    seen = '<?xml version="1.0"?>\n<Data><Job><Job_Id>2.bw</Job_Id><job_state>R</job_state></Job></Data>\n'
    cli, script = adapter(
        Completed(153, "", "qstat: Unknown Job Id Error 1.bw\n", 0.1), Completed(0, seen, "", 0.1)
    )
    answer = cli.list_jobs([BatchId("1.bw"), BatchId("2.bw")])
    assert isinstance(answer, Listing)
    assert answer.unknown_ids == ("1.bw",) and [job.batch_id for job in answer.jobs] == ["2.bw"]
    assert answer.asked_ids == ("1.bw", "2.bw")
    assert len(script.calls) == 2


def test_first_failure_ends_the_single_questions():
    cli, script = adapter(Completed(111, "", "refused", 0.1))
    assert isinstance(cli.list_jobs([BatchId("1.bw"), BatchId("2.bw")]), Unavailable)
    assert len(script.calls) == 1


def test_cancel_and_holes():
    cli, _ = adapter(Completed(0, "", "", 0.1))
    assert cli.cancel(BatchId("1.bw")) is CancelResult.ASKED
    assert isinstance(cli.holes(), Unavailable)
    text = "header\n------\nbw 64 2 10:00 00:00:00 now\n"
    cli, script = adapter(Completed(0, text, "", 0.1), commands=BatchCommands(holes="showbf"))
    assert cli.holes() == (Hole(2, 600),)
    assert script.calls[0][0] == ("showbf", "--blocking")
