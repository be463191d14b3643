"""Inputs of a node: once for all jobs, bounded at a time, space promised to jobs as a whole, gone with the last one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.multijob.node import supply
from pilot.multijob.node.manifest import InputFile, Inputs, Job, Kind, Limits, Place
from pilot.multijob.node.provision import Drop, Fetch, Look, Outcome
from pilot.multijob.node.steps import InputsMade
from pilot.multijob.node.supply import Supply

KIND = Kind("plain", False, None, (), None, None)
MIB = 1 << 20


def job(number: int, *paths: str, size: int | None = None, outputs: tuple[str, ...] = ()) -> Job:
    places = tuple(Place(name, "/out/" + name) for name in outputs)
    inputs = tuple(InputFile(path, size) for path in paths)
    return Job(number, 1, KIND, 1.0, ("x",), {}, places, None, inputs)


class Node:
    """A supply and the errands that it has begun. `sizes`: MiB of each file at its source."""

    def __init__(self, method: str, *jobs: Job, room_mib: float = 1000.0, **limits: Any) -> None:
        command = ("get", "{source}", "{target}") if method == "command" else ()
        self.supply = Supply(Inputs(method, command), Limits(**limits), "/own", jobs)
        self.supply.room_mib = room_mib
        self.under_way: dict[int, Any] = {}
        self.begun: list[Any] = []
        self.most = 0
        self.ready: dict[int, InputsMade] = {}
        self.here: set[str] = set()

    def step(self) -> None:
        errands, ready = self.supply.step()
        while errands or ready:
            for errand in errands:
                self.under_way[errand.number] = errand.request
                self.begun.append(errand.request)
            for slot, made in ready:
                self.ready[slot] = made
            busy = sum(not isinstance(request, Drop) for request in self.under_way.values())
            self.most = max(self.most, busy)
            errands, ready = self.supply.step()

    def end(self, number: int, trouble: str = "", size_mib: int = 10) -> None:
        request = self.under_way.pop(number)
        if isinstance(request, Fetch) and not trouble:
            self.here.add(request.target)
        if isinstance(request, Drop):
            self.here.discard(request.path)
        self.supply.done(number, Outcome(size_mib * MIB, trouble))
        self.step()

    def end_all(self) -> None:
        while self.under_way:
            self.end(min(self.under_way))

    def fetched(self) -> list[str]:
        return [request.source for request in self.begun if isinstance(request, Fetch)]

    def ask(self, *jobs: Job) -> None:
        for slot, item in enumerate(jobs):
            self.supply.ask(slot, item)
        self.step()


@pytest.mark.parametrize(("method", "places"), [("in place", ()), ("link", (("/raw/a", "/raw/a"),))])
def test_an_input_that_is_not_copied_is_looked_at_and_that_is_all(method, places):
    mine = job(1, "/raw/a", size=5)
    node = Node(method, mine)
    node.ask(mine)
    assert node.ready == {}
    node.end_all()
    assert node.begun == [Look("/raw/a", 5, 3)]
    assert node.ready == {0: InputsMade(places)}


@pytest.mark.parametrize("method", ["copy", "command"])
def test_a_file_is_brought_once_for_all_jobs_and_goes_with_the_last_one(method):
    jobs = [job(number, "/raw/a") for number in range(3)]
    node = Node(method, *jobs)
    node.ask(*jobs[:2])
    node.end_all()
    assert set(node.ready) == {0, 1}
    [target] = node.here
    assert node.ready[0].places == node.ready[1].places == (("/raw/a", target),)
    for slot in (0, 1):
        node.supply.leave(slot)
        node.step()
    assert node.under_way == {}, "the third job of the list needs it"
    node.ask(jobs[2])
    assert node.ready[0].places == (("/raw/a", target),)
    node.supply.leave(0)
    node.step()
    node.end_all()
    assert node.here == set()
    assert node.fetched() == ["/raw/a"]


def test_what_a_command_brings_is_not_looked_at_first():
    mine = job(1, "/raw/a", size=7)
    node = Node("command", mine, input_tries=2, input_try_s=9.0)
    node.ask(mine)
    words = ("get", "{source}", "{target}")
    assert node.begun == [Fetch("/raw/a", "/own/input.1", None, 7, None, words, 2, 9.0)]


@pytest.mark.parametrize("method", ["in place", "copy", "command"])
def test_only_so_many_errands_are_under_way_at_a_time(method):
    jobs = [job(number, *(f"/raw/{number}.{index}" for index in range(5))) for number in range(6)]
    node = Node(method, *jobs, inputs_at_once=3)
    node.ask(*jobs)
    node.end_all()
    assert node.most == 3
    assert len(node.ready) == 6


def test_a_job_waits_until_all_that_it_needs_fits_and_goes_in_its_turn():
    jobs = [job(1, "/raw/a", "/raw/b"), job(2, "/raw/c", "/raw/d"), job(3, "/raw/e")]
    node = Node("copy", *jobs, room_mib=30)
    node.ask(*jobs)
    node.end_all()
    assert set(node.ready) == {0}, (
        "30 MiB hold two files of 10 and no further two; the third job waits its turn"
    )
    node.supply.leave(0)
    node.step()
    node.end_all()
    assert set(node.ready) == {0, 1, 2}
    assert node.fetched() == ["/raw/a", "/raw/b", "/raw/c", "/raw/d", "/raw/e"]


def test_what_no_running_job_uses_makes_room_and_is_brought_again():
    jobs = [job(1, "/raw/a"), job(2, "/raw/b"), job(3, "/raw/a")]
    node = Node("copy", *jobs, room_mib=15)
    for item in jobs:
        node.ready.clear()
        node.ask(item)
        node.end_all()
        assert set(node.ready) == {0}
        node.supply.leave(0)
        node.step()
    node.end_all()
    assert node.fetched() == ["/raw/a", "/raw/b", "/raw/a"]
    assert node.here == set()


def test_a_file_that_is_asked_for_while_it_goes_is_brought_again():
    jobs = [job(1, "/raw/a"), job(2, "/raw/b"), job(3, "/raw/a")]
    node = Node("copy", *jobs, room_mib=10)
    node.supply.ask(0, jobs[0])
    node.step()
    node.end_all()
    node.supply.leave(0)
    node.supply.ask(1, jobs[1])
    node.step()
    node.end(min(node.under_way))
    [request] = node.under_way.values()
    assert isinstance(request, Drop)
    node.supply.ask(2, jobs[2])
    node.step()
    node.end_all()
    assert set(node.ready) == {0, 1}
    node.supply.leave(1)
    node.step()
    node.end_all()
    assert set(node.ready) == {0, 1, 2}
    assert node.fetched() == ["/raw/a", "/raw/b", "/raw/a"]


def test_what_a_waiting_job_needs_may_go_and_comes_again():
    jobs = [job(1, "/raw/a"), job(2, "/raw/b", "/raw/c"), job(3, "/raw/a", "/raw/d")]
    node = Node("copy", *jobs, room_mib=20, inputs_at_once=1)
    node.supply.ask(0, jobs[0])
    node.step()
    node.end_all()
    node.supply.leave(0)
    node.ready.clear()
    node.supply.ask(1, jobs[1])
    node.supply.ask(2, jobs[2])
    node.step()
    node.end_all()
    assert set(node.ready) == {1}, "it asked first, and what only the other one needs makes room for it"
    node.supply.leave(1)
    node.step()
    node.end_all()
    assert set(node.ready) == {1, 2}
    assert sorted(node.fetched()) == ["/raw/a", "/raw/a", "/raw/b", "/raw/c", "/raw/d"]


def test_space_that_was_promised_to_a_failed_job_is_free_again():
    jobs = [job(1, "/raw/a", "/raw/b"), job(2, "/raw/c", "/raw/d"), job(3, "/raw/b")]
    node = Node("copy", *jobs, room_mib=20, inputs_at_once=1)
    node.supply.ask(0, jobs[0])
    node.step()
    node.end(1)
    node.end(2)
    node.end(3, "gone")
    assert node.ready.pop(0).trouble == "gone"
    node.supply.ask(0, jobs[1])
    node.step()
    node.end_all()
    assert node.ready[0].trouble == ""
    assert node.fetched() == ["/raw/a", "/raw/c", "/raw/d"], "nobody waits for the other file now"


def test_a_job_that_never_fits_fails_alone():
    jobs = [job(1, "/raw/a", "/raw/b"), job(2, "/raw/c")]
    node = Node("copy", *jobs, room_mib=15)
    node.ask(*jobs)
    node.end_all()
    assert node.ready[0].trouble == "inputs of 20 MiB do not fit into 15 MiB of this node"
    assert node.ready[1].trouble == ""


@pytest.mark.parametrize("failing", [Look, Fetch])
def test_a_failed_input_fails_only_the_jobs_that_name_it_and_is_tried_for_later_ones(failing):
    jobs = [job(1, "/raw/a", "/raw/b"), job(2, "/raw/b"), job(3, "/raw/c"), job(4, "/raw/b")]
    node = Node("copy", *jobs)
    node.ask(*jobs[:3])
    while node.under_way:
        number, request = min(node.under_way.items())
        path = request.path if isinstance(request, Look) else getattr(request, "source", "")
        hit = isinstance(request, failing) and path == "/raw/b"
        node.end(number, "no such file" if hit else "")
    assert {slot: made.trouble for slot, made in node.ready.items()} == {
        0: "no such file",
        1: "no such file",
        2: "",
    }
    node.ready.clear()
    node.supply.ask(3, jobs[3])
    node.step()
    node.end_all()
    assert node.ready[3].trouble == ""


@pytest.mark.parametrize("method", ["in place", "copy", "command"])
@pytest.mark.parametrize("first", [5, 7])
def test_a_wrong_declaration_fails_the_jobs_that_have_it_and_no_neighbour(method, first):
    """The file has 7 bytes; who declares 5 of them hears so, whoever asks first."""
    jobs = [job(1, "/raw/a", size=first), job(2, "/raw/a", size=12 - first), job(3, "/raw/a", size=7)]
    node = Node(method, *jobs)
    node.ask(*jobs)
    while node.under_way:
        number, request = min(node.under_way.items())
        node.end(number, "found 7" if getattr(request, "size", None) == 5 else "")
    troubles = {item.inputs[0].size: node.ready[slot].trouble for slot, item in enumerate(jobs)}
    assert troubles == {5: "found 7", 7: ""}
    assert node.ready[2].trouble == ""
    for slot in range(3):
        node.supply.leave(slot)
    node.step()
    node.end_all()
    assert node.here == set()


def test_what_only_one_of_two_jobs_declares_is_compared_for_both_in_one_look():
    mine = InputFile("/raw/a", None, "00000001")
    jobs = [job(1, "/raw/a", size=5), job(2)._replace(inputs=(mine, InputFile("/raw/a")))]
    node = Node("copy", *jobs)
    node.supply.ask(0, jobs[0])
    node.step()
    node.end_all()
    assert [request for request in node.begun if not isinstance(request, Drop)] == [
        Look("/raw/a", 5, 3),
        Fetch("/raw/a", "/own/input.2", 10 * MIB, 5, "00000001", (), 3, 1800.0),
    ]
    node = Node("in place", *jobs)
    node.ask(*jobs)
    node.end_all()
    assert set(node.ready) == {0, 1}
    assert node.begun == [Look("/raw/a", 5, 3)]


def test_an_errand_without_an_answer_is_given_up_and_its_late_answer_is_not_heard():
    jobs = [job(1, "/raw/a"), job(2, "/raw/b")]
    node = Node("copy", *jobs, inputs_at_once=1, input_tries=1, input_try_s=30.0)
    node.ask(*jobs)
    [hung] = node.under_way
    node.supply.look_at_clock(5.0)
    node.supply.look_at_clock(102.0)
    node.step()
    assert node.ready == {}
    node.supply.look_at_clock(103.0)
    node.step()
    assert "no answer in 98 s" in node.ready[0].trouble
    node.end(hung)
    node.end_all()
    assert node.ready[1].trouble == ""
    assert node.fetched() == ["/raw/b"]


def test_what_a_job_that_left_had_ordered_is_removed_when_it_comes():
    mine, other = job(1, "/raw/a"), job(2, "/raw/b")
    node = Node("copy", mine, other)
    node.ask(mine)
    node.end(min(node.under_way))
    node.supply.leave(0)
    node.step()
    assert len(node.under_way) == 1, "it is on its way"
    node.end_all()
    assert node.here == set()
    assert node.ready == {}


def test_a_job_that_is_given_back_needs_nothing_any_more():
    jobs = [job(1, "/raw/a"), job(2, "/raw/a")]
    node = Node("copy", *jobs)
    node.ask(jobs[0])
    node.end_all()
    node.supply.forget(jobs[1])
    node.supply.leave(0)
    node.step()
    node.end_all()
    assert node.here == set()


@pytest.mark.parametrize(
    ("paths", "outputs"),
    [
        (("/raw/a", "/other/a"), ()),
        (("/raw/o.root",), ("o.root",)),
        (("/raw/payload_stdout.txt",), ()),
    ],
)
@pytest.mark.parametrize("method", ["link", "copy"])
def test_names_that_are_taken_in_the_work_directory_are_refused(method, paths, outputs):
    mine = job(1, *paths, outputs=outputs)
    node = Node(method, mine)
    node.ask(mine)
    node.end_all()
    assert "names that are taken" in node.ready[0].trouble
    node = Node("in place", mine)
    node.ask(mine)
    node.end_all()
    assert node.ready[0].trouble == ""


def test_what_happens_to_one_file_costs_as_much_as_the_jobs_that_wait_for_it():
    """32 jobs of 1,000 inputs each: a look at all of them at each end of an errand would hold up the agent."""
    jobs = [job(n, *(f"/raw/{n}.{index}" for index in range(1000))) for n in range(32)]
    node = Node("copy", *jobs, room_mib=1e9)
    looks = 0

    def counted(item):
        nonlocal looks
        looks += 1
        return once(item)

    once, supply._once = supply._once, counted
    try:
        node.ask(*jobs)
        node.end_all()
    finally:
        supply._once = once
    assert len(node.ready) == 32
    assert looks < 32 * 6


@settings(max_examples=300)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=4, unique=True), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(10, 70),
    st.data(),
)
def test_whatever_happens_every_job_hears_and_nothing_is_left(lists, slots, at_once, room_mib, data):
    """Jobs in few slots with shared files, errands that end in any order and may fail, little space."""
    jobs = [job(n, *(f"/raw/{name}" for name in names)) for n, names in enumerate(lists)]
    node = Node("copy", *jobs, room_mib=room_mib, inputs_at_once=at_once)
    waiting, in_slot, heard = list(jobs), {}, 0
    while waiting or in_slot or node.under_way:
        for slot in range(slots):
            if slot not in in_slot and waiting:
                in_slot[slot] = waiting.pop(0)
                node.supply.ask(slot, in_slot[slot])
        node.step()
        assert len(node.here) * 10 <= room_mib
        choices = [("end", number) for number in node.under_way]
        choices += [("leave", slot) for slot in in_slot if slot in node.ready]
        assert choices, "all wait for each other"
        what, which = data.draw(st.sampled_from(choices))
        if what == "end":
            node.end(
                which, data.draw(st.sampled_from(["", "", "", "gone"])) if not _is_drop(node, which) else ""
            )
        else:
            heard += 1
            made = node.ready.pop(which)
            assert made.trouble or len(made.places) == len(in_slot[which].inputs)
            assert all(here in node.here for _, here in made.places)
            node.supply.leave(which)
            del in_slot[which]
    node.step()
    node.end_all()
    assert heard == len(jobs)
    assert node.here == set()
    assert node.most <= at_once


def _is_drop(node: Node, number: int) -> bool:
    return isinstance(node.under_way[number], Drop)
