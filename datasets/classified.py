"""Files with a class: read from a table or from class folders, dealt into splits, and checked before anything is learned."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import DataError
from .files import SPLITS, Item, find_images, find_volumes, read_table
from .people import with_subjects
from .subject_splits import drawn_subjects, with_splits

# what columns of a table are called, ours first
COLUMNS = {"path": ("path", "file"), "label": ("label", "class"), "subject": ("subject",), "split": ("split",)}


@dataclass(frozen=True)
class Classified:
    """Labelled items of each split, and the classes, sorted by name: a class is called by its place among them."""

    train: list[Item]
    valid: list[Item]
    test: list[Item]
    classes: tuple[str, ...]

    def targets(self, items: list[Item]) -> list[int]:
        """(n,) the numbers of the classes of items."""
        return [self.classes.index(item.label) for item in items]


def find_classified(root: str | Path, volumes: bool, table: str = "", columns: Sequence[str] = ()) -> list[Item]:
    """The labelled files below `root`, sorted by name; `split` as a table or a folder says, "" where neither does.

    table: a CSV file of which files are taken ("" = `labels.csv` at the root; without one, the class is the folder:
    [train/]<class>/…). columns: `name=column` where it calls path, label, subject, split otherwise; a path is relative to the
    root, or to the root's folder of the row's split. Rows without a label are left out.
    A subject that no table tells is guessed by names (`with_subjects`). Raises `DataError` for a folder or table that cannot
    be so read.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give one with labelled {'volumes' if volumes else 'images'}.")
    path = Path(table) if table else root / "labels.csv"
    if table or columns or path.is_file():
        items = _of_table(root, path, _asked(columns))
    else:
        items = [replace(item, label=item.collection) for item in (find_volumes if volumes else find_images)(root, SPLITS)]
        loose = [item for item in items if not item.label]
        if loose:
            raise DataError(
                f"{loose[0].path} lies in no folder of a class, and {root} has no labels.csv; put it into <class>/ or write "
                "one with the columns path,label[,subject][,split]."
            )
    if not items:
        raise DataError(f"{path if path.is_file() else root} labels no file; give each a label.")
    return sorted(with_subjects(items), key=lambda item: item.name)


def dealt(items: list[Item]) -> Classified:
    """Labelled items by split; where nobody says a split, the subjects of each class are dealt (`with_splits`).

    Raises `DataError` when splits share a subject, when only some files have a split, or when the training split has too few
    classes, or none of one that another split has.
    """
    unsaid = [item for item in items if not item.split]
    if 0 < len(unsaid) < len(items):
        raise DataError(
            f"{unsaid[0].name} has no split, though {len(items) - len(unsaid)} other files have one; give all files a split, "
            "or none."
        )
    items = with_splits(items, by_class=True)
    of = {split: [item for item in items if item.split == split] for split in SPLITS[1:]}
    classes = sorted({item.label for item in of["train"]})
    if len(classes) < 2:
        what = f"only files of class {classes[0]!r}" if classes else "no labelled file"
        raise DataError(f"The training split has {what}; files of two classes, at least, are told apart.")
    for item in of["valid"] + of["test"]:
        if item.label not in classes:
            raise DataError(
                f"{item.name} (split {item.split}) is of class {item.label!r}, which no file of the training split is; add "
                "such files to it, or leave the class out."
            )
    return Classified(*of.values(), tuple(classes))


def missing_classes(data: Classified) -> list[str]:
    """A sentence for each split that has files, but none of some class."""
    said = []
    for split in ("valid", "test"):
        there = {item.label for item in getattr(data, split)}
        absent = [label for label in data.classes if there and label not in there]
        if absent:
            said.append(f"the split {split} has no file of class {', '.join(map(repr, absent))}: nothing is known of it there.")
    return said


def drawn_in_each_class(items: list[Item], count: int, seed: int) -> list[Item]:
    """The items of `count` subjects a class, drawn by the seed (`subject_splits.drawn_subjects`); all items for 0.

    A subject with files of several classes is drawn for each of them apart.
    """
    if not count:
        return items
    chosen = set()
    for label in sorted({item.label for item in items}):
        chosen |= set(drawn_subjects([item for item in items if item.label == label], count, seed, f" of class {label!r}"))
    return [item for item in items if item in chosen]


def _asked(columns: Sequence[str]) -> dict[str, str]:
    """`name=column` words as a dictionary."""
    pairs = [word.partition("=") for word in columns]
    for name, sign, column in pairs:
        if name not in COLUMNS or not sign or not column:
            raise DataError(f"--columns has {name + sign + column!r}; write name=column, the name one of {', '.join(COLUMNS)}.")
    return {name: column for name, _, column in pairs}


def _of_table(root: Path, path: Path, asked: dict[str, str]) -> list[Item]:
    rows, column = _rows(path, asked)
    items = []
    for row in rows:
        name, label, subject, split = (
            (row.get(column[what]) or "").strip() if column[what] else "" for what in ("path", "label", "subject", "split")
        )
        if split not in SPLITS:
            raise DataError(f"{path} gives {name} the split {split!r}; use train, valid, test, or nothing.")
        found = _place(root, name, split)
        if found is None:
            raise DataError(f"{path} names {name!r}, which is no file below {root}; give paths like a/b.png, relative to it.")
        if label:
            parts = found.parts
            folder = parts[0] if len(parts) > 1 and parts[0] in SPLITS[1:] else ""
            split = split or folder
            inner = parts[1:] if folder else parts
            items.append(Item(root / found, found.as_posix(), inner[0] if len(inner) > 1 else "", label, subject, split))
    twice = [name for name, times in Counter(item.name for item in items).items() if times > 1]
    if twice:
        raise DataError(f"{path} names {twice[0]} more than once; a file has one label.")
    return items


def _rows(path: Path, asked: dict[str, str]) -> tuple[list[dict], dict[str, str]]:
    """The rows of a table, and what its columns of path, label, subject and split are called ("" = it has none)."""
    rows, there = read_table(path, "--labels")
    column = {}
    for what, usual in COLUMNS.items():
        column[what] = asked.get(what) or next((name for name in usual if name in there), "")
        if (column[what] or what in ("path", "label")) and column[what] not in there:
            raise DataError(
                f"{path} has no column {column[what] or what!r}, but {', '.join(there) or 'none at all'}; say which one is "
                f"meant: --columns {what}=…"
            )
    return rows, column


def _place(root: Path, name: str, split: str) -> Path | None:
    """The path of a row's file relative to the root, which it may not leave; None where there is no such file."""
    path = Path(name)
    if not name or path.is_absolute() or ".." in path.parts:
        return None
    return next((at for at in (path, Path(split) / path) if (root / at).is_file()), None)
