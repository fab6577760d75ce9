from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.errors import DataError
from datasets.subject_splits import drawn_subjects, splits_in_words, with_splits


@dataclass(frozen=True)
class Thing:
    name: str
    subject: str = ""
    split: str = ""


def people(count: int, split: str = "") -> list[Thing]:
    """Two things of each person."""
    return [Thing(f"p{number}_{frame}", f"p{number}", split) for number in range(count) for frame in (1, 2)]


def by_split(things) -> dict[str, set[str]]:
    dealt = with_splits(things)
    return {split: {of.subject or of.name for of in dealt if of.split == split} for split in ("train", "valid", "test")}


@given(st.integers(0, 60))
def test_a_subject_is_in_one_split_and_three_fill_all(count):
    of = by_split(people(count))
    assert sum(map(len, of.values())) == count == len(set().union(*of.values()))
    assert all(of.values()) or count < 3


def test_shares_are_a_fifth_and_a_tenth():
    sizes = {split: len(subjects) for split, subjects in by_split(people(2000)).items()}
    assert abs(sizes["test"] - 400) < 60 and abs(sizes["valid"] - 200) < 45


def test_who_is_there_stays_when_others_come_and_in_any_order():
    few, more = by_split(people(60)), by_split(people(200)[::-1])
    assert all(few[split] <= more[split] for split in few)


def test_what_is_given_stays_and_fills_no_other():
    things = [*people(40), Thing("a", "anna", "test"), Thing("a2", "anna")]
    of = by_split(things)
    assert of["test"] == {"anna"} and of["valid"] and of["train"]
    of = by_split([*people(20, "train"), Thing("b", "", "test")])
    assert of["test"] == {"b"} and len(of["valid"]) >= 1 and len(of["train"]) >= 15
    of = by_split([*people(20, "train"), Thing("b", "", "valid")])
    assert of == {"train": {f"p{number}" for number in range(20)}, "valid": {"b"}, "test": set()}


def test_a_subject_in_two_splits_is_named():
    with pytest.raises(DataError, match=r"Subject anna is in two splits, train and test \(a2\)"):
        with_splits([Thing("a1", "anna", "train"), Thing("a2", "anna", "test")])


def test_few_subjects_are_drawn_by_the_seed_and_fewer_are_a_part_of_more():
    things = people(20)
    few, more = drawn_subjects(things, 3, 1), drawn_subjects(things, 8, 1)
    assert len(few) == 6 and len({of.subject for of in few}) == 3 and set(few) < set(more)
    assert few != drawn_subjects(things, 3, 2) and drawn_subjects(things[::-1], 3, 1)[::-1] == few
    assert drawn_subjects(things, 0, 1) == things
    with pytest.raises(DataError, match="--labelled 21 asks for more than the 20 subjects there are"):
        drawn_subjects(things, 21, 1)


def test_files_and_their_subjects_are_counted_as_are_those_that_were_drawn_from_them():
    files_of = {"train": people(3), "valid": [Thing("alone"), Thing("other")], "test": []}
    assert splits_in_words(people(1), files_of, "volume") == (
        "train: 2 volumes of 1 subject, drawn from 6 volumes of 3 subjects; valid: 2 volumes."
    )
    assert splits_in_words(files_of["train"], files_of, "image") == "train: 6 images of 3 subjects; valid: 2 images."


def test_it_is_said_where_every_file_is_taken_for_a_subject_of_its_own():
    files_of = {"train": [Thing("a"), Thing("train/b_image.nii.gz", "b")], "valid": [Thing("c")], "test": []}
    assert splits_in_words(files_of["train"][:1], files_of, "volume") == (
        "train: 1 volume, drawn from 2 volumes; valid: 1 volume; each taken for a subject of its own."
    )
    told = {"train": [Thing("a", "anna"), Thing("b", "berta")], "valid": [], "test": []}
    assert splits_in_words(told["train"], told, "volume") == "train: 2 volumes."
