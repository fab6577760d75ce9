"""Splits for training and judging: as they are given, else dealt by subject; and never a subject in two of them."""

from dataclasses import replace
from typing import TypeVar

from .draws import keys, permutation
from .errors import DataError
from .files import Item, hash_of, subject_of

SHARE = 0.15  # of the subjects, that is held out for a split that is not given

Kind = TypeVar("Kind", bound=Item)


def with_splits(items: list[Kind]) -> list[Kind]:
    """Every item with a split. What has none is of train; where no item is of valid (or of any split), some subjects are.

    Where no item has a split, 15 % of the subjects become test and 15 % valid, by a hash of their names; where only valid is
    missing, 15 % of train's. So a subject stays where she is when others are added.
    """
    given = {item.split for item in items} - {""}
    dealt = [replace(item, split=item.split or "train") for item in items]
    shares = {"test": 0.0 if given else SHARE, "valid": 0.0 if "valid" in given else SHARE}

    def split_of(item: Kind) -> str:
        place = hash_of(subject_of(item), "split of a subject")
        held = "test" if place < shares["test"] else "valid" if place < sum(shares.values()) else "train"
        return held if item.split == "train" else item.split

    return [replace(item, split=split_of(item)) for item in dealt]


def refuse_shared_subjects(items: list[Kind]) -> None:
    """Raises `DataError` when a subject is in two splits: what one of them taught would be tested by the other."""
    first: dict[str, Kind] = {}
    for item in items:
        other = first.setdefault(subject_of(item), item)
        if other.split != item.split:
            raise DataError(
                f"subject {subject_of(item)} is in split {other.split} ({other.name}) and in split {item.split} ({item.name}); "
                "put all files of a subject into one split."
            )


def drawn_subjects(items: list[Kind], count: int, seed: int) -> list[Kind]:
    """The items of `count` subjects, drawn by the seed; the subjects of fewer are among those of more. Raises `DataError`."""
    subjects = sorted({subject_of(item) for item in items})
    if count > len(subjects):
        raise DataError(f"--labelled asks for {count} subjects, but the training split has {len(subjects)}; ask for fewer.")
    chosen = {subjects[place] for place in permutation(keys(seed, "labelled subjects"), len(subjects))[:count]}
    return [item for item in items if subject_of(item) in chosen]
