"""The tape stand-in: slow, and its faults strike once."""

from simulators.storage.model import Keep, Lose, Shorten, TapeModel, TapeRules


def test_file_is_kept_after_its_delay():
    model = TapeModel(TapeRules(10))
    assert model.advance({"a": 5}, 0) == ()
    assert model.advance({"a": 5}, 9) == ()
    assert model.advance({"a": 5}, 10) == (Keep("a"),)


def test_growing_file_waits_again():
    model = TapeModel(TapeRules(10))
    model.advance({"a": 5}, 0)
    assert model.advance({"a": 6}, 10) == ()
    assert model.advance({"a": 6}, 20) == (Keep("a"),)


def test_fault_strikes_a_name_once():
    model = TapeModel(TapeRules(0, lose=("*.root",), shorten=("*.raw",)))
    assert model.advance({"x/a.root": 1, "b.raw": 1, "c": 1}, 0) == (
        Shorten("b.raw"),
        Keep("c"),
        Lose("x/a.root"),
    )
    assert model.advance({"x/a.root": 1}, 1) == (Keep("x/a.root"),)
