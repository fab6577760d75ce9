"""Splits for training and judging, for all downstream tasks: as they are given, else dealt; and never a subject in two of them.

Items are whatever has a name, a split ("" where it is not known) and, where that is known, a subject.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from .errors import DataError
from .files import hash_of, subject_of

SHARES = {"test": 0.2, "valid": 0.1}  # of the subjects

Kind = TypeVar("Kind")


def with_splits(items: Sequence[Kind]) -> list[Kind]:
    """Every item with a split, all of a subject with one. What has a split keeps it; what has none goes with its subject.

    The subjects that then have none are dealt by a hash of their names, so that who is there stays when others come: a fifth to
    test and a tenth to valid, each at least one if there are three, but nobody to a split that is given. Where all is given but
    valid, a tenth of train's subjects become that: something has to choose the weights.
    Raises `DataError` for a subject in two splits.
    """
    split_of: dict[str, str] = {}
    for item in items:
        before = split_of.get(subject_of(item)) or item.split
        if item.split and item.split != before:
            raise DataError(
                f"Subject {subject_of(item)} is in two splits, {before} and {item.split} ({item.name}); put all files of a "
                "subject into one, or tell subjects apart in the table (for volumes also with --subject_pattern)."
            )
        split_of[subject_of(item)] = before
    given = set(split_of.values()) - {""}
    left = [subject for subject, split in split_of.items() if not split]
    shares = {split: share for split, share in SHARES.items() if split not in given}
    if not left and "valid" in shares:
        left, shares = [subject for subject, split in split_of.items() if split == "train"], {"valid": SHARES["valid"]}
    place = {subject: hash_of(subject, "split of a subject") for subject in left}
    left.sort(key=lambda subject: (place[subject], subject))
    bound, later = 0.0, len(shares)  # splits to be filled after this one, train among them
    for split, share in shares.items() if len(place) >= 3 else ():
        bound += share
        count = min(max(1, sum(place[subject] < bound for subject in left)), len(left) - later)
        split_of |= dict.fromkeys(left[:count], split)
        left, later = left[count:], later - 1
    split_of |= dict.fromkeys(left, "train")
    return [replace(item, split=split_of[subject_of(item)]) for item in items]


def drawn_subjects(items: Sequence[Kind], count: int, seed: int, whose: str = "") -> list[Kind]:
    """The items of `count` subjects, drawn by the seed; 0 = all. Fewer are a part of more.

    Raises `DataError` when there are not so many. whose: of which class, where each has its own, for what is said.
    """
    subjects = sorted({subject_of(item) for item in items}, key=lambda s: (hash_of(s, f"labelled {seed}"), s))
    if count > len(subjects):
        raise DataError(
            f"--labelled {count} asks for more than the {len(subjects)} subjects{whose} there are to train on; give fewer."
        )
    chosen = set(subjects[: count or None])
    return [item for item in items if subject_of(item) in chosen]
