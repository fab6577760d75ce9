"""What downstream runs have scored, as pieces of the report: a table a split, a column a start; their pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .report_page import folded, paragraph, picture, table
from .report_starts import FAILED, failed_classes, has_context, is_random, learns, name_of, names_of, weights_of
from .run_record import StageRecord
from .tables import with_interval
from .words import counted, duration

MOST_STARTS = 6  # beside each other; more would not fit the page
MOST_PICTURES = 6  # that are shown without being asked for
LINEAR = "A linear map on frozen features learns no filters: it tells what the weights know as they are."
UNLIKE = (
    "No start from random weights has f_inter, so where f_inter takes part, another network is compared, not the weights alone."
)


def downstream_tables(records: Sequence[StageRecord], stages: Sequence[StageRecord]) -> str:
    """The scores of fine-tuned networks on each split that they were judged on, and the pictures that they have drawn.

    stages: those of the run, some of which have written the weights that were started from.
    """
    parts = []
    for task, of_task in _by_task(records).items():
        splits = dict.fromkeys(split for of in of_task for split, found in of.results.items() if isinstance(found, dict))
        for split in splits:
            judged = [of for of in of_task if isinstance(of.results.get(split), dict)]
            tables = np.array_split(np.arange(len(judged)), -(-len(judged) // MOST_STARTS))
            parts += [_split_table(task, split, [judged[place] for place in of], stages) for of in tables]
        parts.append(_what_is_compared(of_task))
        drawn = [(of, path) for of in of_task for path in sorted([*of.folder.glob("*.png"), *of.folder.glob("seed-*/*.png")])]
        pictures = [picture(path, f"{name_of(of)}: {_of_seed(of, path)}{_caption(path)}") for of, path in drawn]
        shown = "".join(pictures)
        parts.append(shown if len(pictures) <= MOST_PICTURES else folded(f"Pictures of {task} ({len(drawn)})", shown))
    return "".join(parts)


def _split_table(task: str, split: str, judged: Sequence[StageRecord], stages: Sequence[StageRecord]) -> str:
    """Starts beside each other, scores and classes below each other, so that no class is out of sight."""
    figures = [_figures(of.results[split]) for of in judged]
    names = list(dict.fromkeys(name for of in figures for name in of))
    if not names:
        return ""
    rows = [
        ["started from", *(weights_of(of, stages) for of in judged)],
        ["learns", *(learns(of) for of in judged)],
        ["f_inter", *(("yes" if has_context(of) else "no") if "context" in of.config else "–" for of in judged)],
        ["training", *(duration(of.seconds) if of.epochs else "–" for of in judged)],
        *([name, *(of.get(name, "–") for of in figures)] for name in names),
    ]
    told = [row for row in rows if set(row[1:]) != {"–"}]
    failed = any(failed_classes(of.results[split]) for of in judged)
    caption = f"{task}, split {split}{_how_many(judged[0].results[split])}" + f"; ▲ a Dice below {FAILED:g}" * failed
    return table(["", *names_of(judged)], told, caption, prose=True)


def _what_is_compared(judged: Sequence[StageRecord]) -> str:
    """What one has to know of the starts, where it matters."""
    linear = any(of.config.get("tune") == "linear" for of in judged)
    random = [of for of in judged if is_random(of)]
    unlike = any(map(has_context, judged)) and random and not any(map(has_context, random))
    return paragraph(LINEAR) * linear + (paragraph(f"▲ {UNLIKE}") if unlike else "")


def _by_task(records: Sequence[StageRecord]) -> dict[str, list[StageRecord]]:
    found: dict[str, list[StageRecord]] = {}
    for record in records:
        if record.results:
            found.setdefault(record.script.removeprefix("finetune_").split("-")[0], []).append(record)
    return found


def _of_seed(of: StageRecord, path: Path) -> str:
    """Of a picture in a folder of one of several seeds, which seed it is."""
    return "" if path.parent == of.folder else f"seed {path.parent.name.removeprefix('seed-')}, "


def _caption(path: Path) -> str:
    """What a picture that a downstream script has drawn shows."""
    if path.stem.startswith("best_median_worst_"):
        return f"best, median and worst {path.stem.removeprefix('best_median_worst_')} case"
    return path.stem.replace("_", " ")


def _figures(found: dict) -> dict[str, str]:
    """The scores of a split, by their names in words, of any of the three tasks."""
    if "mean" in found and "classes" in found:  # segmentation
        shown = {_measure(measure, found): with_interval(of, 2) for measure, of in found["mean"].items()}
        for name, of in found["classes"].items():
            name = name.replace("_", " ")
            shown[f"Dice of {name} ↑"] = "▲ " * (name in failed_classes(found)) + with_interval(of["dice"], 2)
        return shown
    if "scores" in found:  # classification
        return {name.replace("_", " "): with_interval(of) for name, of in found["scores"].items()}
    figures = {}  # detection, or the means of several seeds of it
    for name, value in found.items():
        value = value.get("mean") if isinstance(value, dict) else value
        if name.startswith("map") and isinstance(value, (int, float)):
            figures["mAP at 0.5 ↑" if name == "map50" else "mAP ↑"] = f"{100 * value:.1f} %"
    return figures


def _measure(name: str, found: dict) -> str:
    """A measure of segmentations, the mean over classes, with its unit and which way is better."""
    unit = {"voxel": "voxels"}.get(found.get("unit"), found.get("unit") or "unit unknown")
    within = f" within {found['tolerance']:g} {unit}" if "tolerance" in found else ""
    known = {"dice": "mean Dice ↑", "iou": "mean IoU ↑", "hd95": f"mean HD95, {unit}, of what was missed the diagonal ↓"}
    return (known | {"surface_dice": f"mean surface Dice{within} ↑"}).get(name, f"mean {name}")


def _how_many(found: dict) -> str:
    """How many were judged, and what its intervals are of."""
    what = next((what for what in ("volumes", "files", "pictures") if isinstance(found.get(what), int)), None)
    if what is None:
        return ""
    subjects = f" of {counted(found['subjects'], 'subject')}" if isinstance(found.get("subjects"), int) else ""
    seeds = f", {counted(len(found['seeds']), 'seed')}" if isinstance(found.get("seeds"), list) else ""
    intervals = "in brackets 95 % intervals by bootstrap over subjects, not over seeds; ↑ more is better, ↓ less is"
    return f": {found[what]} {what}{subjects}{seeds}; {intervals}"
