"""Looks at a folder of training data: what is in it, and what is wrong with it."""

import csv
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from .contact_sheet import MOST_SHOWN, draw_sheet, thumbnail
from .contents import Contents, case_of, contents_of, is_volume, printable
from .dealing import deal
from .errors import DataError
from .files import Item
from .findings import Finding, Seen, findings_of
from .inspection import Facts, full_facts, quick_facts
from .likeness import candidates, same_scan

THREADS = 16  # a header waits for the disk, or for the network
OF_A_STACK = re.compile(r"(.+?)[_-]?\d+")  # a picture that is numbered may be a slice of the same case as the next one


@dataclass(frozen=True)
class Report:
    """seen: every volume and picture; findings, by kind; seconds and bytes: how long it took to read how much."""

    root: Path
    how: Literal["quick", "full"]
    seen: list[Seen]
    findings: list[Finding]
    seconds: float
    bytes: int

    @property
    def rate(self) -> str:
        return (
            f"{len(self.seen):,} files, {self.bytes / 1e6:,.1f} MB in {self.seconds:.1f} s: "
            f"{len(self.seen) / self.seconds:,.0f} files/s, {self.bytes / 1e6 / self.seconds:,.1f} MB/s"
        )


def check_folder(root: Path, how: Literal["quick", "full"], output: Path | None, processes: int) -> Report:
    """Reads the headers ("quick") or every voxel ("full") of all files below `root`, of which nothing is changed.

    output: a new or existing folder outside of `root` for `findings.csv`, `facts.csv` and a picture of each collection;
    None writes nothing. Raises `DataError` when `root` is no folder or holds no data, or when `output` lies in it.
    """
    if output is not None and output.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{output} lies in the folder that is checked, {root}; name one outside of it.")
    contents = contents_of(root)
    begin = time.monotonic()
    seen = _looked_at(contents, _quick(contents.items) if how == "quick" else _full(contents.items, processes))
    alike = _near_pairs(seen, contents, processes) if how == "full" else []
    findings = findings_of(seen, contents, alike)
    seconds = max(time.monotonic() - begin, 1e-6)
    report = Report(root, how, seen, findings, seconds, sum(one.facts.bytes for one in seen))
    if output is not None:
        _write(report, output, processes)
    return report


def quick_findings(items: Sequence[Item]) -> list[Finding]:
    """What the headers of listed files say is wrong, in seconds for thousands of them; [] when nothing is."""
    seen = [Seen(item, facts) for item, facts in zip(items, _quick(items))]
    persons = {item.name: [name for name in (item.subject, case_of(item)) if name] for item in items}
    return findings_of(seen, Contents(Path(), list(items), persons=persons))


def _quick(items: Sequence[Item]) -> list[Facts]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda item: quick_facts(item.path, is_volume(item)), items))


def _full(items: Sequence[Item], processes: int) -> list[Facts]:
    facts: list = [None] * len(items)
    sizes = [_size(item.path) for item in items]
    order = sorted(range(len(items)), key=lambda place: -sizes[place])  # so that no process is left with a large one
    tasks = [(items[place].path, is_volume(items[place])) for place in order]
    with tqdm(None, "reading every voxel", sum(sizes), unit="B", unit_scale=True, leave=False) as bar:
        for number, result, why in deal(full_facts, tasks, processes):
            path, place = tasks[number][0], order[number]
            facts[place] = result or Facts(sizes[place], kind="unreadable", fault=f"{path} cannot be read ({why})")
            bar.update(sizes[place])
    return facts


def _size(path: Path) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _looked_at(contents: Contents, facts: list[Facts]) -> list[Seen]:
    """Files with their facts, and with the spacing of the manifest where the file itself tells none."""
    seen = []
    for item, one in zip(contents.items, facts):
        said = re.split(r"[,;\s]+", contents.manifest.get(item.name, {}).get("spacing", "").strip())
        try:
            spacing = one.spacing or (tuple(map(float, said)) if len(said) == 3 else None)
        except ValueError:
            spacing = None
        positive = spacing is not None and all(0 < step < np.inf for step in spacing)
        seen.append(Seen(item, replace(one, spacing=spacing if positive else None)))
    return seen


def _near_pairs(seen: Sequence[Seen], contents: Contents, processes: int) -> list[tuple[int, int]]:
    """Places of two files that show the same scan, though their bytes differ."""
    places: dict[int, list[int]] = {}
    known = set()
    for place, one in enumerate(seen):
        content = one.facts.content
        if content is None or content.sha256 in known or not content.print.any() or one.mostly_air:
            continue
        known.add(content.sha256)
        places.setdefault(len(content.print), []).append(place)
    pairs = []
    for group in places.values():
        prints = np.stack([seen[place].facts.content.print for place in group])
        stacks = _numbered([_stack(seen[place], contents) for place in group])
        pairs += [(group[i], group[j]) for i, j in candidates(prints, stacks)]
    tasks = [(seen[i].item.path, seen[j].item.path, seen[i].volume) for i, j in pairs]
    compared = tqdm(deal(same_scan, tasks, processes), "comparing", len(tasks), unit="pair", leave=False)
    return sorted(pairs[number] for number, same, _ in compared if same)


def _stack(one: Seen, contents: Contents) -> str:
    """What the slices of one case have in common, pictures that are alike by nature; a name of its own for a volume."""
    if one.volume:  # those of one file are moments of one scan
        return contents.manifest.get(one.name, {}).get("source") or one.name
    numbered = OF_A_STACK.fullmatch(one.item.path.stem)
    persons = contents.persons.get(one.name)
    return persons[-1] if persons else f"{one.item.collection}/{numbered[1]}" if numbered else one.name


def _numbered(names: list[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)


def _write(report: Report, output: Path, processes: int) -> None:
    output.mkdir(parents=True, exist_ok=True)
    rows = [[f.kind, name, f.sentence, f.remedy] for f in report.findings for name in f.files]
    _write_table(output / "findings.csv", ["kind", "file", "sentence", "remedy"], rows)
    columns = ["file", "collection", "split", "subject", "bytes", "shape", "dtype", "spacing", "fault"]
    of_content = ["least", "low", "high", "most", "air", "nans", "infinities", "roughness", "sha256"]
    _write_table(output / "facts.csv", columns + of_content, [_row(one, of_content) for one in report.seen])
    for collection in sorted({one.item.collection for one in report.seen}):
        _write_sheet(report, collection, output, processes)


def _row(one: Seen, of_content: list[str]) -> list[str]:
    item, facts = one.item, one.facts
    texts = [item.name, item.collection, item.split, item.subject, facts.bytes, facts.shape, facts.dtype, facts.spacing or ()]
    content = [getattr(facts.content, name) for name in of_content] if facts.content else [""] * len(of_content)
    return [_text(value) for value in [*texts, facts.fault, *content]]


def _text(value) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _write_table(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file).writerows([columns, *rows])


def _write_sheet(report: Report, collection: str, output: Path, processes: int) -> None:
    """Those with findings first, at most half of the sheet, then others at even distances."""
    marked = {name for finding in report.findings for name in finding.files}
    group = [one for one in report.seen if one.item.collection == collection]
    wrong = [one for one in group if one.name in marked]
    right = [one for one in group if one.name not in marked]
    wrong = wrong[: max(MOST_SHOWN // 2, MOST_SHOWN - len(right))]
    count = min(len(right), MOST_SHOWN - len(wrong))
    shown = wrong + [right[place * len(right) // count] for place in range(count)]
    pictures = {}
    for number, picture, _ in deal(thumbnail, [(one.item.path, one.volume) for one in shown], processes):
        pictures[number] = picture
    drawn = [(printable(one.item.path.name), pictures[number], one.name in marked) for number, one in enumerate(shown)]
    draw_sheet(output / f"{collection or 'files'}.png", f"{collection or report.root.name}: {len(group):,} files", drawn)
