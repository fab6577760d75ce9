"""Which stored values of label files make which class, and back."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .cases import Case
from .errors import DataError
from .scans import stored_label

UNMAPPED = 255  # no class
MOST_CLASSES = 254  # beside the background, in uint8
LARGEST = 2**24  # that a value may be
MOST_NAMED = 8
THREADS = 4  # that unpack files; each holds one map


@dataclass(frozen=True)
class LabelMap:
    """values: of class 1, 2, … the stored values; 0 is the background. names: of class 1, 2, …

    others_are_background: what no class names counts as background; else it is refused.
    """

    values: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    others_are_background: bool = False

    @classmethod
    def from_words(cls, words: Sequence[str], names: Sequence[str] = (), others_are_background: bool = False) -> "LabelMap":
        """Of words such as "205", or "1+2+4" for several values that make one class; without names, those words.

        Raises `DataError` for words that are no such values, values that two classes share, names of another number, or names
        that are empty or alike.
        """
        values = tuple(_values_of(word) for word in words)
        every = [value for of_class in values for value in of_class]
        twice = sorted({value for value in every if every.count(value) > 1})
        if twice:
            raise DataError(f"The label value {twice[0]} is given twice in {' '.join(words)}; a value belongs to one class.")
        if not 0 < len(words) <= MOST_CLASSES:
            raise DataError(f"{len(words)} classes are given; 1 to {MOST_CLASSES} can be learned.")
        if names and len(names) != len(words):
            raise DataError(f"{len(names)} names are given for {len(words)} classes ({' '.join(words)}); give one a class.")
        if names and (len(set(names)) < len(names) or not all(names)):
            raise DataError(
                f"The names of the classes, {', '.join(map(repr, names))}, are not all different; give each its own."
            )
        return cls(values, tuple(names or words), others_are_background)

    @classmethod
    def found_in(cls, cases: Sequence[Case], names: Sequence[str] = (), others_are_background: bool = False) -> "LabelMap":
        """Every value that occurs in the labels of training cases (split train or none), each a class; names: by rising value.

        Negative values are no class, for they mark most often what is to be ignored. Raises `DataError` as `stored_label` does,
        for negative values unless others are background, when there is nothing but background, or more than 254 values.
        """
        files = _to_learn_from(cases)
        with ThreadPoolExecutor(THREADS) as pool:
            of_files = list(pool.map(_values_in, files))
        for case, values in zip(files, of_files):
            if min(values) < 0 and not others_are_background:
                raise DataError(
                    f"{case.label_path} holds the negative label value {min(values)}; name the values that are classes with "
                    "--classes, and count others as background with --other_labels background."
                )
        found = sorted(value for value in set().union(*of_files) if value > 0)
        if not found:
            raise DataError(_no_foreground(cases, "no value is above 0"))
        return cls.from_words([str(value) for value in found], names, others_are_background)

    @property
    def words(self) -> tuple[str, ...]:
        """What `from_words` makes the same map of."""
        return tuple("+".join(map(str, of_class)) for of_class in self.values)

    @property
    def count(self) -> int:
        """Classes, with the background."""
        return len(self.values) + 1

    def classes_of(self, stored: np.ndarray, path: Path) -> np.ndarray:
        """uint8, of the shape of `stored` (…, C): 0 is the background. path: of the file, for what is said of it.

        Raises `DataError` for values that no class names.
        """
        first, table = self._table()
        result, strange = np.empty(stored.shape, np.uint8, order="F"), set()
        for number in range(stored.shape[-1]):  # by slices, so that no array of 64 bits has the size of a volume
            values = stored[..., number].astype(np.int64)
            classes = table[(values - first).clip(0, len(table) - 1)]
            unmapped = classes == UNMAPPED
            if unmapped.any():
                strange |= set(np.unique(values[unmapped]).tolist())
                classes[unmapped] = 0
            result[..., number] = classes
        if strange and not self.others_are_background:
            raise DataError(
                f"{path} has unmapped label values: {_some(strange)}; name them as classes ({' '.join(self.words)} are "
                "named), or count all others as background."
            )
        return result

    def _table(self) -> tuple[int, np.ndarray]:
        """(the first value, the classes of it and of those that follow); the first and the last one are of no class."""
        known = {0: 0} | {value: number for number, of_class in enumerate(self.values, 1) for value in of_class}
        first = min(known) - 1
        table = np.full(max(known) + 2 - first, UNMAPPED, np.uint8)
        table[np.array(list(known)) - first] = list(known.values())
        return first, table

    def stored_of(self, classes: np.ndarray) -> np.ndarray:
        """The values that stand in label files for class numbers, of a class the first one: the way back."""
        return np.array([0, *(of_class[0] for of_class in self.values)], np.int32)[classes]

    def refuse_unmapped(self, cases: Sequence[Case]) -> None:
        """Raises `DataError` when a label holds values that no class names: before the training, not when it is judged."""
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda case: self.classes_of(stored_label(case), case.label_path), cases):
                pass

    def refuse_absent(self, cases: Sequence[Case]) -> None:
        """Raises `DataError` when no label of the training cases has a voxel of any class; reads until one has."""
        if not any(self.classes_of(stored_label(case), case.label_path).any() for case in _to_learn_from(cases)):
            raise DataError(_no_foreground(cases, f"the values {' '.join(self.words)} do not occur"))


def _to_learn_from(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.label_path is not None and case.split in ("", "train")]


def _values_in(case: Case) -> set[int]:
    stored, found = stored_label(case), set()
    for number in range(stored.shape[2]):
        found |= set(map(int, np.unique(stored[..., number]).tolist()))
        if len(found) > MOST_CLASSES + 1:
            raise DataError(f"{case.label_path} holds more than {MOST_CLASSES} values; a label map is meant, not a scan.")
    return found


def _no_foreground(cases: Sequence[Case], why: str) -> str:
    files = _to_learn_from(cases)
    first = f" (the first is {files[0].label_path})" if files else ""
    return f"None of {len(files)} training labels{first} has any foreground: {why}; give labels with something to find."


def _values_of(word: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in word.split("+"))
    except ValueError:
        values = (0,)
    if 0 in values or any(abs(value) > LARGEST for value in values):
        raise DataError(f"{word!r} names no class; give a label value other than 0, such as 205, or several as one, 1+2+4.")
    return values


def _some(values: set[int]) -> str:
    shown = [str(int(value)) for value in sorted(values)]
    return ", ".join(shown[:MOST_NAMED]) + (f" and {len(shown) - MOST_NAMED} more" if len(shown) > MOST_NAMED else "")
