"""Volumes with label maps: which files make a case, whose it is, and to which split it belongs."""

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from .errors import DataError
from .files import SPLITS, VOLUME_ENDINGS, read_table
from .foreign import shape_in
from .identity import ARCHIVES
from .pairing import by_custom, by_patterns, is_of_test, plain_name
from .people import subjects_by_names
from .subject_splits import with_splits

MANIFEST = "cases.csv"  # image,label[,subject][,split]
KINDS = "NIfTI, MHA, NRRD, NPY, NPZ, HDF5"
THREADS = 16  # a header waits for the disk, or for the network
HOW_TO_NAME = f"name files with --image_pattern and --label_pattern, or in a table {MANIFEST} (image,label,subject,split)"


@dataclass(frozen=True)
class Case:
    """An image, and the label map of its voxels. label_path: None = nothing to learn from; the image's = an archive of both.

    name: of the image, relative to the root. split: "", train, valid or test. channel: which one is taken of an image that has
    several along a fourth axis; None = none is chosen, and such images are refused.
    """

    path: Path
    name: str
    label_path: Path | None
    subject: str = ""
    split: str = ""
    channel: int | None = None

    def fault(self) -> str:
        """Why nothing can be learned from it, in a sentence; "" when it can. Reads all of it."""
        from .reading import refuse_constant
        from .scans import read_scan, stored_label

        try:
            pixels = read_scan(self).pixels
            refuse_constant(self.path, pixels, pixels)
            if self.label_path is not None:
                stored_label(self)
        except DataError as error:
            return str(error)
        return ""

    @staticmethod
    def concerns(items: list["Case"]) -> list[tuple[bool, str]]:
        """What headers say is wrong with listed cases: (True: it cannot be read at all, a sentence)."""
        with ThreadPoolExecutor(THREADS) as pool:
            return [(True, fault) for fault in pool.map(_fault_of_headers, items) if fault]


def _fault_of_headers(case: Case) -> str:
    from .scans import refuse_misfit

    try:
        refuse_misfit(case)
    except DataError as error:
        return str(error)
    return ""


# ---- which there are


def find_cases(
    root: str | Path,
    image_pattern: str = "",
    label_pattern: str = "",
    subject_pattern: str = "",
    need_labels: bool = True,
    manifest: str = "",
    channel: int | None = None,
) -> list[Case]:
    """The cases below `root`, sorted by name: of a table, by patterns (`pairing.by_patterns`), else by custom (`by_custom`).

    manifest: a CSV file `image,label[,subject][,split]` with paths relative to `root`; "" = `cases.csv` there, if there is one.
    subject_pattern: a regular expression whose one group, in a case's name, is the subject; "" = guessed. Splits: the table's,
    else the folders train, valid, test, beside which others count for nothing; test for imagesTs; else "". channel: of every
    case. Raises `DataError`, which names the file, when an image has no label and `need_labels`, or several; when a table or
    pattern is wrong, or nothing is found.
    """
    if not str(root):
        raise DataError("No volumes are given; name the folder of images and their labels with --data_path.")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; give one with images{' and their labels' * need_labels}.")
    lonely = (label_pattern and not image_pattern) or (image_pattern and need_labels and not label_pattern)
    if lonely or (image_pattern and manifest):
        raise DataError("--image_pattern and --label_pattern go together, and not with a table of cases; give both or none.")
    table = root / manifest if manifest and not Path(manifest).is_file() else Path(manifest or root / MANIFEST)
    if manifest or (not image_pattern and table.is_file()):
        cases = _of_table(root, table)
    else:
        names = _names(root)
        if image_pattern:
            pairs = by_patterns(names, image_pattern, label_pattern)
        else:
            pairs = _by_custom(root, names, need_labels, channel)
        cases = [Case(root / name, name, root / label if label else None) for name, label in pairs.items()]
    if not cases:
        what = f"no file {image_pattern}" if image_pattern else f"no images ({KINDS}){' with labels' * need_labels}"
        labels = "" if need_labels else labels_in_words(taken_for_labels(root, image_pattern))
        how = HOW_TO_NAME if need_labels else labels or "name another folder with --data_path, or files with --image_pattern"
        raise DataError(f"{root} has {what}; {how.removesuffix('.')}.")
    unlabelled = [case.path for case in cases if case.label_path is None]
    if need_labels and unlabelled:
        raise DataError(_no_label(unlabelled, label_pattern))
    splits = {"train", "valid", "test"} if (root / "train").is_dir() else set()
    return sorted(_placed(cases, splits, subject_pattern, channel), key=lambda case: case.name)


def _names(root: Path) -> list[str]:
    """Files that may be images or labels; hidden ones, which macOS makes beside others, are none."""
    splits = ("train", "valid", "test") if (root / "train").is_dir() else ()
    names = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.name.lower().endswith((*VOLUME_ENDINGS, *ARCHIVES)) and path.is_file()
    )
    return [name for name in names if not re.search(r"(^|/)\.", name) and (not splits or name.split("/")[0] in splits)]


def _by_custom(root: Path, names: list[str], need_labels: bool, channel: int | None) -> dict[str, str]:
    """The label's name, or "", for every image. Raises `DataError` where labels are needed and one is unclear or lonely."""
    found, orphans = by_custom(names)
    pairs = {}
    for name, labels in found.items():
        if len(labels) > 1 and need_labels:
            raise DataError(f"{root / name} has {len(labels)} labels, {' and '.join(labels)}; {HOW_TO_NAME}.")
        both = not labels and name.lower().endswith(ARCHIVES) and has_array(root / name, "label")
        pairs[name] = labels[0] if len(labels) == 1 else name if both else ""
    used = Counter(label for label in pairs.values() if label)
    for label, count in used.items():
        if count > 1 and need_labels:
            images = " and ".join(name for name, of in pairs.items() if of == label)
            raise DataError(f"{root / label} would be the label of {images}; {HOW_TO_NAME}.")
    labelled = {PurePosixPath(name).parent for name, label in pairs.items() if label}
    for name in [name for name, label in pairs.items() if not label]:
        # frames are taken out of a 4-D file, which stays beside them, unless it is one of channels
        of_time = channel is None and PurePosixPath(name).parent in labelled and _axes(root / name) == 4
        to_predict = is_of_test(name) and PurePosixPath(name).parent not in labelled
        if of_time or (need_labels and to_predict):
            del pairs[name]
    if need_labels and orphans and all(pairs.values()):
        raise DataError(f"{root / orphans[0]} is a label without an image; {HOW_TO_NAME}.")
    return pairs


def taken_for_labels(root: str | Path, image_pattern: str = "") -> list[str]:
    """Files below `root` that `find_cases` takes by their names for labels; none where a pattern or a table tells images."""
    if image_pattern or (Path(root) / MANIFEST).is_file():
        return []
    found, orphans = by_custom(_names(Path(root)))
    return sorted({*orphans, *(label for labels in found.values() for label in labels)})


def labels_in_words(labels: list[str]) -> str:
    """A sentence of files that are not segmented since they are taken for labels; "" for none."""
    if not labels:
        return ""
    was = "1 file was" if len(labels) == 1 else f"{len(labels)} files were"
    some = ", ".join(labels[:3]) + ", …" * (len(labels) > 3)
    return f"{was} taken for labels by name and left out ({some}); --image_pattern names images otherwise."


def has_array(path: Path, name: str) -> bool:
    """Whether an archive holds an array of this name; no where it cannot be read."""
    try:
        return bool(shape_in(path, name))
    except Exception:  # parsers fail in many ways
        return False


def _axes(path: Path) -> int:
    try:
        return len(shape_in(path))
    except Exception:  # parsers fail in many ways
        return 0


def _no_label(paths: list[Path], label_pattern: str) -> str:
    more = f" ({len(paths) - 1} more have none)" if len(paths) > 1 else ""
    if label_pattern:
        return f"{paths[0]} has no label{more}: there is no file {label_pattern} for it; add it, or choose other images."
    return (
        f"{paths[0]} has no label{more}: none of its name with _label, _seg, _gt or _mask lies beside it or in a folder "
        f"labels, and it holds none itself; add it, or {HOW_TO_NAME}."
    )


def _of_table(root: Path, path: Path) -> list[Case]:
    rows, columns = read_table(path, "--manifest")
    if not {"image", "label"} <= set(columns):
        raise DataError(f"{path} needs the columns image,label[,subject][,split] in its first line.")
    cases: dict[str, Case] = {}
    for row in rows:
        name, label, subject, split = (row.get(column) or "" for column in ("image", "label", "subject", "split"))
        for file in (name, label):
            inside = file == Path(file).as_posix() and not file.startswith("/") and ".." not in Path(file).parts
            if (file or not name) and not (inside and (root / file).is_file()):
                raise DataError(f"{path} names {file!r}, which is no file below {root}; give paths like a/b.nii.gz.")
        if split not in SPLITS:
            raise DataError(f"{path} gives {name} the split {split!r}; use train, valid, test, or nothing.")
        if name == label and not name.lower().endswith(ARCHIVES):
            raise DataError(f"{path} names {name} as its own label; only NPZ and HDF5 files hold both, name the label's file.")
        if name in cases:
            raise DataError(f"{path} names {name} twice; give an image one row.")
        cases[name] = Case(root / name, name, root / label if label else None, subject, split)
    return list(cases.values())


def _placed(cases: list[Case], splits: set[str], pattern: str, channel: int | None) -> list[Case]:
    """The cases with their splits, subjects and channel."""
    folder_of = {case: case.name.partition("/")[0] for case in cases}
    inner = {case: case.name.partition("/")[2] if folder_of[case] in splits else case.name for case in cases}
    guessed = {} if pattern else subjects_by_names(inner.values())
    placed = []
    for case in cases:
        subject = case.subject or (_matched(case, pattern) if pattern else guessed[inner[case]] or plain_name(inner[case]))
        split = folder_of[case] if folder_of[case] in splits else "test" if is_of_test(case.name) else ""
        placed.append(replace(case, subject=subject, split=case.split or split, channel=channel))
    return placed


def _matched(case: Case, pattern: str) -> str:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--subject_pattern {pattern} is no regular expression ({error}).") from None
    if compiled.groups != 1:
        raise DataError(
            f"--subject_pattern {pattern} has {compiled.groups} groups; the subject is what one pair of () matches."
        )
    match = compiled.search(case.name)
    if not match or not match.group(1):
        raise DataError(f"--subject_pattern {pattern} finds no subject in {case.name}; give one that fits every image.")
    return match.group(1)


# ---- which are learned from


def deal_splits(cases: Sequence[Case], valid_cases: Sequence[str] = (), test_cases: Sequence[str] = ()) -> list[Case]:
    """The cases, each in train, valid or test (`subject_splits.with_splits`), and all of a subject in one.

    valid_cases, test_cases: parts of names, digits as whole numbers ("1004" is not in "11004"); they win over the splits that
    cases have. Raises `DataError` for a part that fits no case, or a subject in two splits.
    """
    named = _named(cases, {"valid": valid_cases, "test": test_cases})
    dealt = with_splits([replace(case, split=named.get(case.name) or case.split) for case in cases])
    if named and not any(case.split == "train" for case in dealt):
        raise DataError("With these --valid_cases and --test_cases no case is left to train on; name fewer.")
    return dealt


def _named(cases: Sequence[Case], parts: dict[str, Sequence[str]]) -> dict[str, str]:
    """The split of cases whose names have any of the parts."""
    named: dict[str, str] = {}
    for split, of_split in parts.items():
        for part in of_split:
            whole = re.compile(r"(?<!\d)" * part[:1].isdigit() + re.escape(part) + r"(?!\d)" * part[-1:].isdigit())
            found = [case for case in cases if whole.search(case.name)]
            if not part or not found:
                raise DataError(f"--{split}_cases {part} is in the name of no case; the first is {cases[0].name}.")
            for case in found:
                if named.setdefault(case.name, split) != split:
                    raise DataError(f"{case.path} is named by --valid_cases and by --test_cases ({part}); name it once.")
    return named
