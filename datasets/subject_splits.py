"""Splits for training and judging, for all downstream tasks: as they are given, else dealt; and never a subject in two of them.

Items are whatever has a name, a split ("" where it is not known) and, where that is known, a subject; with a class, a label.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from .errors import DataError
from .files import hash_of, subject_of
from .pairing import plain_name

SHARES = {"test": 0.2, "valid": 0.1}  # of the subjects

Kind = TypeVar("Kind")


def with_splits(items: Sequence[Kind], by_class: bool = False) -> list[Kind]:
    """Every item with a split, all of a subject with one. What has a split keeps it; what has none goes with its subject.

    The subjects that then have none are dealt by a hash of their names, a fifth to test and a tenth to valid, but nobody to a
    split that is given. Where all is given but valid, a tenth of train's subjects become that: something has to choose the
    weights. Without classes, who is there stays when others come, and of three subjects each split has one; by_class: each
    split has these shares of each class (`_by_shares`).
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
    if by_class:
        for of_class in _by_class(items, left):
            split_of |= _by_shares(of_class, shares)
    else:
        split_of |= _by_hash(left, place, shares)
    return [replace(item, split=split_of[subject_of(item)]) for item in items]


def _by_hash(left: list[str], place: dict[str, float], shares: dict[str, float]) -> dict[str, str]:
    """The split of each subject of `left`, who stand in the order of their places in [0, 1)."""
    split_of, bound, later = {}, 0.0, len(shares)  # splits to be filled after this one, train among them
    for split, share in shares.items() if len(left) >= 3 else ():
        bound += share
        count = min(max(1, sum(place[subject] < bound for subject in left)), len(left) - later)
        split_of |= dict.fromkeys(left[:count], split)
        left, later = left[count:], later - 1
    return split_of | dict.fromkeys(left, "train")


def _by_shares(left: list[str], shares: dict[str, float]) -> dict[str, str]:
    """The split of each subject of `left`, in its order: shares as whole subjects, at least one, but the last one trains."""
    split_of, everyone = {}, len(left)
    for split, share in shares.items():
        count = min(max(1, round(share * everyone)), len(left) - 1)
        split_of |= dict.fromkeys(left[:count], split)
        left = left[count:]
    return split_of | dict.fromkeys(left, "train")


def _by_class(items: Sequence[Kind], subjects: list[str]) -> list[list[str]]:
    """The subjects of each class, in their order; one with files of several counts for that of the fewest subjects."""
    labels = defaultdict(set)
    for item in items:
        labels[subject_of(item)].add(item.label)
    sizes = Counter(label for subject in subjects for label in labels[subject])
    of_class = defaultdict(list)
    for subject in subjects:
        of_class[min(labels[subject], key=lambda label: (sizes[label], label))].append(subject)
    return list(of_class.values())


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


def splits_in_words(learned: Sequence, files_of: dict[str, Sequence], what: str) -> str:
    """How many files and subjects learn, validate and test, and whether nobody told subjects, and names none of two files.

    learned: those drawn from `files_of["train"]`. what: a file is.
    """
    drawn = f", drawn from {_counted(files_of['train'], what)}" if len(learned) < len(files_of["train"]) else ""
    others = [f"{name}: {_counted(files_of[name], what)}" for name in ("valid", "test") if files_of[name]]
    everything = [file for files in files_of.values() for file in files]
    alone = len(everything) > 1 and all(plain_name(file.name).endswith(file.subject) for file in everything)
    said = [f"train: {_counted(learned, what)}{drawn}", *others, *["each taken for a subject of its own"] * alone]
    return f"{'; '.join(said)}."


def _counted(files: Sequence, what: str) -> str:
    subjects = len({subject_of(file) for file in files})
    said = f"{len(files)} {what}{'s' * (len(files) != 1)}"
    return said if subjects == len(files) else f"{said} of {subjects} subject{'s' * (subjects != 1)}"
