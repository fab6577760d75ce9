from hypothesis import given
from hypothesis import strategies as st

from engine.repeated import Repeated


def test_a_warning_that_stays_is_said_after_1_2_4_8_epochs_whatever_its_numbers():
    repeated = Repeated()
    said = [repeated.to_say([f"slices: loss at ln K = 3.4{epoch} for {epoch} epochs."]) for epoch in range(20)]
    assert [epoch for epoch, of in enumerate(said, 1) if of] == [1, 2, 4, 8, 16]
    assert said[0] == ["slices: loss at ln K = 3.40 for 0 epochs."]
    assert said[3] == ["slices: loss at ln K = 3.43 for 3 epochs. (Said again after 4 more epochs, if it stays.)"]


def test_a_warning_that_comes_back_is_new_and_another_family_is_another_warning():
    repeated = Repeated()
    epochs = [["images: rank 1.2"], ["images: rank 1.1"], ["images: rank 1.3"], [], ["images: rank 1.1", "slices: rank 1.1"]]
    assert [len(repeated.to_say(of)) for of in epochs] == [1, 1, 0, 0, 2]


@given(st.lists(st.sets(st.sampled_from(["images: a", "volumes: a", "volumes: b"])), max_size=40))
def test_what_is_new_in_an_epoch_is_always_said_and_nothing_else_that_was_not_warned_of(epochs):
    repeated, before = Repeated(), set()
    for of in epochs:
        said = repeated.to_say(sorted(of))
        assert of - before <= set(said) and {one.partition(" (")[0] for one in said} <= of
        before = of
