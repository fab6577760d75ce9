"""Whose files are, where no table tells: what downstream scripts guess from the names of all of them."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from .files import SPLITS, Item
from .identity import person_by_name, stem_of
from .pairing import plain_name

# one picture of a person of whom there are several: a time, a visit, a slice
ONE_OF_SEVERAL = re.compile(r"([_-](frame|slice|visit|session|ses)[_-]?\d+)+$", re.IGNORECASE)
PERSON = re.compile(r"(patient|pat|subject|subj|sub|person|case|p)[-_ ]?\d+[a-z]?", re.IGNORECASE)  # what a person is called
BEGINS = re.compile(rf"({PERSON.pattern})[_-]", re.IGNORECASE)


def subjects_by_names(names: Iterable[str]) -> dict[str, str]:
    """The subject of every file, by paths without folders of splits and of classes; "" for one that names give to nobody.

    By the first that tells: `sub-…` in a folder's or the file's name, or a folder that begins the file's (`person_by_name`); a
    folder, or the beginning of the file's name, called after a person (`PERSON`); a folder among many alike
    (`folders_of_people`); what stands before `_frame01`, `_visit1` and the like.
    """
    names = list(names)
    folders = folders_of_people(names)
    return {name: _subject(name, folders) for name in names}


def with_subjects(items: Sequence[Item]) -> list[Item]:
    """Items, with a subject where no table but names tell one."""
    inner = {item.name: _inner(item) for item in items}
    told = subjects_by_names(inner.values())
    return [replace(item, subject=item.subject or told[inner[item.name]]) for item in items]


def folders_of_people(names: Iterable[str]) -> set[str]:
    """Folders that each hold the files of one person: many side by side, in which few names of files come again and again.

    patient/visit1, patient/visit2, …: there are more such folders than names of files in all of them, and than files in any.
    In a folder of a site, a modality or a visit there are more files than such folders, or they are called otherwise.
    """
    files: dict[str, list[str]] = defaultdict(list)  # names below each folder, without the folder's own at their beginning
    beside: dict[str, set[str]] = defaultdict(set)
    for name in names:
        base = stem_of(name).rpartition("/")[2]
        for folder in PurePosixPath(name).parents:
            if folder.name:
                files[str(folder)].append(base.removeprefix(folder.name))
                beside[str(folder.parent)].add(str(folder))
    return {folder for folders in beside.values() for folder in _of_people({at: files[at] for at in folders})}


def _of_people(files: dict[str, list[str]]) -> set[str]:
    """Those among folders side by side, by the names of the files in each."""
    in_folders = Counter(name for names in files.values() for name in set(names))
    alike = {folder: names for folder, names in files.items() if any(in_folders[name] > 1 for name in names)}
    most = max(map(len, alike.values()), default=0)
    kinds = len({name for names in alike.values() for name in names})
    return set(alike) if most > 1 and len(alike) > max(most, kinds) else set()


def _subject(name: str, folders: set[str]) -> str:
    plain = plain_name(name)
    above = list(PurePosixPath(name).parents)[-2::-1]  # from the outermost folder to the innermost
    by_word = next((folder.name for folder in above if PERSON.fullmatch(folder.name)), "")
    begins = BEGINS.match(plain.rpartition("/")[2])
    by_others = next((folder.name for folder in above if str(folder) in folders), "")
    person = person_by_name(name) or by_word or (begins[1] if begins else by_others)
    subject = ONE_OF_SEVERAL.sub("", person or plain)
    return subject if person or subject != plain else ""


def _inner(item: Item) -> str:
    """Its path without the folders of its split and its class, which are nobody's."""
    first, _, inner = item.name.partition("/")
    name = inner if inner and first in SPLITS else item.name
    return name.removeprefix(f"{item.label}/") if item.label else name
