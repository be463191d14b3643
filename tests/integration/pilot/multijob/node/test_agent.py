"""A real agent on real payloads."""

from __future__ import annotations

import tarfile


def test_job_is_worked_and_placed(bundle):
    good = bundle.job("echo 12 events had been read; echo End of Job; printf abc > o.root", ("o.root",))
    lines = bundle.run_agent()
    assert [line["kind"] for line in lines] == ["agent_started", "job_started", "job_ended", "agent_ended"]
    end = bundle.end_of(good)
    assert (end["exit_code"], end["signal"], end["ended_by"]) == (0, None, None)
    assert (end["marker"], end["patterns"], end["events_read"], end["events_written"]) == (True, [], 12, None)
    output, log = end["files"]
    assert output == {"lfn": "o.root", "size": 3, "adler32": "024d0127", "placed": True, "reason": None}
    assert (bundle.out / "o.root").read_bytes() == b"abc"
    assert log["placed"]
    with tarfile.open(bundle.out / log["lfn"]) as tar:
        assert tar.getnames() == ["payload_stdout.txt", "payload_stderr.txt", "job.json"]
    assert lines[-1]["reason"] == "list worked"
    assert lines[-1]["left_behind"] == 0
    assert list(bundle.local.iterdir()) == []
    assert sorted(p.name for p in bundle.out.iterdir()) == ["log.1001.tgz", "o.root"]
