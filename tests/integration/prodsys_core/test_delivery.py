"""Hand delivery: a task's raw files against the list of what was to be brought; what is not right is held."""

import zlib

import pytest

from prodsys_core.models import Transition
from prodsys_core.selectors import job_rows
from prodsys_core.services.actions import BadPick, Pick
from prodsys_core.services.looks import look_act, look_delivery, look_set
from prodsys_core.services.tasks import as_manager

NAMES = [f"cdr{11001 + place}-274495.raw" for place in range(4)]
CONTENT = b"raw events"


@pytest.fixture
def raw(rig, request):
    """The directory of raw files, all four of them there."""
    folder = rig.folder / "raw"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(CONTENT)
    rig.create({274495: [300, 200, 100, 50]}, files_home=f"{folder}/")
    rig.set("ready")
    rig.tick()
    return folder


def line(path, content=CONTENT):
    return f"{path} {len(content)} {zlib.adler32(content):08x}"


def look(rig, lines, sizes_only=False):
    path = rig.folder / "delivery.txt"
    path.write_text("# what was sent\n" + "\n".join(lines) + "\n")
    return look_delivery(rig.task(), str(path), sizes_only)


def manager(rig):
    return as_manager("ann", rig.now)


def sent(rig):
    return sorted(item.job.job_name.split("-")[4] for item in rig.panda.jobs.values())


def test_missing_short_damaged_and_surplus_files_are_shown_and_their_jobs_held_until_a_later_list_is_right(
    rig, raw
):
    (raw / NAMES[0]).unlink()
    (raw / NAMES[1]).write_bytes(CONTENT[:4])
    (raw / NAMES[2]).write_bytes(CONTENT[::-1])
    complete = [line(raw / NAMES[0]), *(line(name) for name in NAMES[1:])]
    seen = look(rig, [*complete, "/elsewhere/cdr1-1.raw 7"])
    assert [text.split(": ", 1)[1] for text in seen.lines] == [
        "missing: not at the site",
        "short: 4 bytes, listed with 10",
        f"damaged: adler32 {zlib.adler32(CONTENT[::-1]):08x}, listed with {zlib.adler32(CONTENT):08x}",
        "surplus: not a file of this task",
    ]
    assert seen.perform(manager(rig)) == 3
    assert len(look_set(rig.task(), "send", manager(rig)).lines) == 3
    rig.set("send")
    rig.tick()
    assert sent(rig) == ["11004"]
    assert job_rows(rig.task())[1]["reason"] == "not-delivered"
    for name in NAMES:
        (raw / name).write_bytes(CONTENT)
    rig.tick()
    assert sent(rig) == ["11004"]
    again = look(rig, complete)
    assert [text.split(": ")[1] for text in again.lines] == ["delivered, held no more"] * 3
    assert again.perform(manager(rig)) == 3
    rig.tick()
    assert len(sent(rig)) == 4
    reasons = Transition.objects.filter(who="ann", reason__endswith="delivered").order_by("pk")
    assert [row.reason for row in reasons] == ["not-delivered"] * 3 + ["delivered"] * 3


def test_a_file_that_is_not_in_the_list_is_held_although_it_is_there(rig, raw):
    seen = look(rig, [line(name) for name in NAMES[:3]])
    assert seen.lines == (f"{NAMES[3]}: missing: not in the delivery list",)
    seen.perform(manager(rig))
    rig.set("send")
    rig.tick()
    assert sent(rig) == ["11001", "11002", "11003"]


def test_a_corrected_or_readmitted_job_stays_held(rig, raw):
    look(rig, [line(name) for name in NAMES[1:]]).perform(manager(rig))
    for name, pick in (("correct", {"events": 9}), ("exclude", {}), ("include", {})):
        look_act(name, rig.task(), Pick(files=(NAMES[0],), **pick)).perform(manager(rig))
    rig.set("send")
    rig.tick()
    assert len(sent(rig)) == 3


def test_a_job_that_waits_for_its_next_attempt_is_held_too(rig, raw):
    rig.set("send")
    rig.tick()
    rig.run_jobs(status="failed", codes={"pilotErrorCode": 1103})
    (raw / NAMES[0]).unlink()
    look(rig, [line(name) for name in NAMES]).perform(manager(rig))
    rig.tick()
    rig.tick(7200)
    assert sent(rig).count("11001") == 1
    assert sent(rig).count("11002") == 2


def test_checksums_are_compared_only_where_both_sides_have_one(rig, raw):
    (raw / NAMES[2]).write_bytes(CONTENT[::-1])
    lines = [line(name) for name in NAMES]
    assert len(look(rig, lines).lines) == 1
    assert look(rig, lines, sizes_only=True).lines == ()
    assert look(rig, [f"{name} {len(CONTENT)}" for name in NAMES]).lines == ()


def test_a_file_that_leads_out_of_its_directory_is_not_read(rig, raw):
    (raw / NAMES[0]).unlink()
    (raw / NAMES[0]).symlink_to("/etc/passwd")
    assert "cannot be looked at" in look(rig, [line(name) for name in NAMES]).lines[0]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["cdr1-1.raw"], "delivery.txt:2: found 'cdr1-1.raw', expected PATH SIZE"),
        (["cdr1-1.raw 7 xyz"], "expected PATH SIZE"),
        (["cdr1-1.raw 7", "cdr1-1.raw 8"], "again with another size"),
        (["é 7"], "cannot be read"),
    ],
)
def test_a_list_that_cannot_be_used_changes_nothing(rig, raw, lines, words):
    with pytest.raises(BadPick, match=words):
        look(rig, lines)


def test_a_list_that_is_not_there_is_one_clear_refusal(rig, raw):
    with pytest.raises(BadPick, match="cannot be read"):
        look_delivery(rig.task(), str(rig.folder / "nope"), False)
