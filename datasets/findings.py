"""What is wrong with a folder of training data: each fault with its files, a sentence and a remedy."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .contents import Contents, is_volume
from .files import Item
from .inspection import Facts
from .outliers import FAR_PLACE, FAR_SIZE, FAR_SPACING, FAR_WIDTH, axis_order, far_off, usual_sizes

# of the voxels in the lowest twentieth of the range; skull-stripped brains in a wide field reach 0.85, and single slices
# through the top of a head 0.95
MOSTLY_AIR, PICTURE_MOSTLY_AIR = 0.95, 0.97
EXTREME = 100.0  # ranges beyond the range of nearly all voxels: metal in CT reaches 15

REMEDY = {
    "unreadable": "Copy the file again from where it came, or remove it.",
    "not a volume": "Give one volume a file, H x W x C, slices last; split a series of volumes, stack single slices.",
    "not real numbers": "Save the magnitude, or the plain array, in a type such as int16 or float32.",
    "empty": "Copy the file again from where it came, or remove it.",
    "NaN": "Replace NaN by the value of air, and look at what made them.",
    "infinite": "Replace infinite values by the value of air, and look at what made them.",
    "constant": "Remove the file; nothing can be learned from it.",
    "mostly air": "Crop it to the body, or remove it; views of it show hardly anything.",
    "axis order": "Move the slices to the last axis: numpy.moveaxis(volume, AXIS, -1).",
    "duplicate": "Keep one of them.",
    "near-duplicate": "Keep one of them, or give them one subject, so that no split tests what another one taught.",
    "subject in two splits": "Put all files of the subject into one split.",
    "intensity outlier": "Look whether its unit is that of the others (Hounsfield units, a scaling left out); convert it.",
    "extreme value": "Clip it to what tissue can have, such as -1024 … 3071 in CT.",
    "size outlier": "Look whether it belongs into this collection; a localiser, a whole-body scan or a label map does not.",
    "spacing outlier": "Look whether its spacing is true, and whether it belongs into this collection.",
    "changed": "Prepare it again, or remove the manifest if the change was meant.",
    "missing": "Prepare it again, or remove its row from the manifest.",
    "not read": "Turn it into .npy with prepare_data.py, or move it out of the folder.",
    "table": "Correct the table.",
}


CANNOT_BE_READ = ("unreadable", "not a volume", "not real numbers", "empty")


@dataclass(frozen=True)
class Finding:
    """kind: a key of `REMEDY`. files: names relative to the root, of those that are concerned; sentence: names them too."""

    kind: str
    files: tuple[str, ...]
    sentence: str
    remedy: str


@dataclass(frozen=True)
class Seen:
    """A file with what was found in it."""

    item: Item
    facts: Facts

    @property
    def name(self) -> str:
        return self.item.name

    @property
    def volume(self) -> bool:
        return is_volume(self.item)

    @property
    def mostly_air(self) -> bool:
        content = self.facts.content
        return content is not None and content.air > (MOSTLY_AIR if self.volume else PICTURE_MOSTLY_AIR)


def findings_of(seen: Sequence[Seen], contents: Contents, alike: Sequence[tuple[int, int]] = ()) -> list[Finding]:
    """All that is wrong, by kind and name. alike: pairs of places in `seen` that show the same scan (`likeness`)."""
    sound = [one for one in seen if not one.facts.fault]
    found = [
        *_table_faults(contents),
        *(finding for one in seen for finding in _of_one(one)),
        *_of_collections(sound),
        *_of_manifest(seen, contents),
        *_duplicates(sound),
        *_near_duplicates(seen, alike),
        *_in_two_splits(seen, contents),
    ]
    order = list(REMEDY)
    return sorted(found, key=lambda finding: (order.index(finding.kind), finding.files))


def _finding(kind: str, files: Sequence[str], sentence: str, remedy: str = "") -> Finding:
    return Finding(kind, tuple(files), sentence, remedy or REMEDY[kind])


def _table_faults(contents: Contents) -> list[Finding]:
    unread = [_finding("not read", [name], f"{name} is of a kind that no script reads.") for name in contents.unread]
    return unread + [_finding("table", [name], sentence) for name, sentence in contents.table_faults]


def _of_one(one: Seen) -> list[Finding]:
    """What a file's own header and voxels say."""
    name, facts, content = one.name, one.facts, one.facts.content
    say = lambda kind, text: [_finding(kind, [name], f"{name} {text}.")]  # noqa: E731
    if facts.fault:
        return [_finding(facts.kind, [name], f"{facts.fault.replace(str(one.item.path), name)}.")]
    if content is None:
        return []
    found = []
    if content.nans:
        found += say("NaN", f"is NaN in {content.nans:,} of {math.prod(facts.shape):,} voxels")
    if content.infinities:
        found += say("infinite", f"is infinite in {content.infinities:,} of {math.prod(facts.shape):,} voxels")
    if content.constant:
        return found + say("constant", f"has the same value, {content.least:g}, everywhere")
    if one.mostly_air:
        found += say("mostly air", f"has {100 * content.air:.1f} % of its voxels at the lowest values")
    elif (beyond := _extreme(one)) is not None:
        found += say("extreme value", f"has values of {beyond:g}, where nearly all are {content.low:g} … {content.top:g}")
    return found


def _extreme(one: Seen) -> float | None:
    content = one.facts.content
    room = EXTREME * (content.top - content.low)
    if content.most > content.top + room:
        return content.most
    return content.least if content.least < content.low - room else None


def _of_collections(sound: Sequence[Seen]) -> list[Finding]:
    """What is unlike the rest of its collection; volumes and pictures of one name are two collections."""
    groups = defaultdict(list)
    for one in sound:
        groups[one.item.collection, one.volume].append(one)
    return [finding for (_, volumes), group in groups.items() for finding in _of_collection(group, volumes)]


def _of_collection(group: list[Seen], volumes: bool) -> list[Finding]:
    turned = _axis_orders(group) if volumes else []
    names = {name for finding in turned for name in finding.files}
    group = [one for one in group if one.name not in names]
    return turned + _sizes(group) + _spacings(group) + _intensities(group)


def _axis_orders(group: list[Seen]) -> list[Finding]:
    usual, found = usual_sizes(np.array([one.facts.shape for one in group])), []
    for one in group:
        content = one.facts.content
        why = axis_order(one.facts.shape, one.facts.spacing, content.roughness if content is not None else None, usual)
        if why:
            axis = "1" if "second axis" in why else "0"
            sentence = f"{one.name} ({_sizes_of(one.facts.shape)}) seems not to have its slices last: {why}."
            found.append(_finding("axis order", [one.name], sentence, REMEDY["axis order"].replace("AXIS", axis)))
    return found


def _sizes(group: list[Seen]) -> list[Finding]:
    sizes = np.log(np.array([one.facts.shape for one in group], np.float64))
    return _unlike(group, "size outlier", sizes, FAR_SIZE, lambda one: f"has {_sizes_of(one.facts.shape)} voxels", _sizes_of)


def _spacings(group: list[Seen]) -> list[Finding]:
    known = [one for one in group if one.facts.spacing is not None]
    steps = np.log(np.array([one.facts.spacing for one in known], np.float64))
    say = lambda spacing: " x ".join(f"{step:.3g}" for step in spacing) + " mm"  # noqa: E731
    return _unlike(known, "spacing outlier", steps, FAR_SPACING, lambda one: f"has a spacing of {say(one.facts.spacing)}", say)


def _intensities(group: list[Seen]) -> list[Finding]:
    known = [one for one in group if one.facts.content is not None and one.facts.content.width > 0 and not one.mostly_air]
    of = [one.facts.content for one in known]
    width = np.log([content.width for content in of])
    place = np.array([(content.high + content.low) / 2 / content.width for content in of])
    far = far_off(width, FAR_WIDTH) | far_off(place, FAR_PLACE)
    low, high = (np.median([getattr(content, name) for content in of]) if of else 0 for name in ("low", "high"))
    usual = f"{low:g} … {high:g} is usual in its collection"
    return [
        _finding("intensity outlier", [one.name], f"{one.name} has intensities of {content.low:g} … {content.high:g}; {usual}.")
        for one, content, is_far in zip(known, of, far)
        if is_far
    ]


def _unlike(group: list[Seen], kind: str, logs: np.ndarray, floor: float, text, say) -> list[Finding]:
    """logs: (files, axes). text: what is said of a file; say: how the median is written."""
    if not len(group):
        return []
    far = np.any([far_off(column, floor) for column in logs.T], axis=0)
    usual = say([round(float(value), 3) for value in np.exp(np.median(logs, axis=0))])
    return [
        _finding(kind, [one.name], f"{one.name} {text(one)}; {usual} is usual in its collection.")
        for one, is_far in zip(group, far)
        if is_far
    ]


def _sizes_of(shape: Sequence[float]) -> str:
    return " x ".join(f"{size:.0f}" for size in shape)


def _of_manifest(seen: Sequence[Seen], contents: Contents) -> list[Finding]:
    there, found = {one.name: one.facts.content for one in seen}, []
    for name, row in contents.manifest.items():
        content = there.get(name)
        if name not in there and not (contents.root / name).is_file():
            found.append(_finding("missing", [name], f"{name} is in the manifest, but not in the folder."))
        elif content is not None and row.get("sha256") not in (None, "", content.sha256):
            found.append(_finding("changed", [name], f"{name} has other bytes than when its manifest was written (SHA-256)."))
    return found


def _duplicates(sound: Sequence[Seen]) -> list[Finding]:
    groups = defaultdict(list)
    for one in sound:
        if one.facts.content is not None and not one.facts.content.constant:
            groups[one.facts.content.sha256].append(one.name)
    return [
        _finding("duplicate", names, f"{_listed(names)} have the same bytes.") for names in groups.values() if len(names) > 1
    ]


def _near_duplicates(seen: Sequence[Seen], alike: Sequence[tuple[int, int]]) -> list[Finding]:
    groups: dict[int, list[int]] = {}  # by each of its places, one list for all of a group
    for pair in alike:
        joined = sorted({place for one in pair for place in groups.get(one, [one])})
        groups |= dict.fromkeys(joined, joined)
    names = [[seen[place].name for place in group] for one, group in groups.items() if one == group[0]]
    return [_finding("near-duplicate", group, f"{_listed(group)} show the same scan.") for group in names]


def _in_two_splits(seen: Sequence[Seen], contents: Contents) -> list[Finding]:
    persons = defaultdict(lambda: defaultdict(list))
    for one in seen:
        for person in contents.persons.get(one.name, ()):
            persons[person][one.item.split or "train"].append(one.name)  # without a split, it is trained on
    found, told = [], set()
    for person, splits in persons.items():
        names = tuple(name for split in sorted(splits) for name in splits[split])
        if len(splits) > 1 and names not in told:  # a table and the names of files may say the same
            told.add(names)
            where = ", ".join(f"{split} ({_listed(splits[split])})" for split in sorted(splits))
            found.append(_finding("subject in two splits", names, f"{person} is in the splits {where}."))
    return found


def _listed(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
