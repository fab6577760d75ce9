"""Tables of the report: what evaluations and downstream runs have scored, and what two runs were told differently."""

from collections.abc import Sequence
from pathlib import Path

from .report_page import columns, folded, picture, table
from .report_words import number
from .run_record import StageRecord
from .tables import cell, with_interval
from .words import duration

SHOWN = {
    "knn": "kNN", "linear": "linear probe", "map": "mAP", "map_chance": "mAP by chance", "precision_at_1": "P@1",
    "nmi": "NMI", "ari": "ARI", "rankme": "RankMe",
}  # fmt: skip
MEASURES = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "surface_dice": "surface Dice"}
MOST_PICTURES = 6  # that are shown without being asked for
NOT_COMPARED = ("format_version", "dump_path", "pretrained_path", "checkpoint_name", "overwrite", "resume", "config")


def evaluation_tables(evaluation: dict) -> str:
    """What frozen weights know of labels: a table for images and one for volumes, with only the scores that there are."""
    parts = []
    for kind in ("images", "volumes"):
        rows = {name: of[kind] for name, of in evaluation.items() if kind in of}
        scores = [score for score in SHOWN if any(score in of for of in rows.values())]
        if rows and scores:
            files = next(iter(rows.values())).get("files")
            caption = f"{files} {kind}; labels are told apart within each collection, in brackets 95 % intervals"
            parts.append(
                table(
                    ["embedding", *(SHOWN[score] for score in scores)],
                    [[name, *(cell(of, score) for score in scores)] for name, of in rows.items()],
                    caption,
                )
            )
    return "".join(parts)


def downstream_tables(records: Sequence[StageRecord]) -> str:
    """The scores of fine-tuned networks on each split that they were judged on, and the pictures that they have drawn."""
    parts = []
    for task, of_task in _by_task(records).items():
        splits = dict.fromkeys(split for of in of_task for split, found in of.results.items() if isinstance(found, dict))
        for split in splits:
            judged = [(of, of.results[split]) for of in of_task if isinstance(of.results.get(split), dict)]
            figures = [_figures(found) for _, found in judged]
            names = list(dict.fromkeys(name for of in figures for name in of))
            rows = [
                [_start_of(of), duration(of.seconds) if of.epochs else "–", *(shown.get(name, "–") for name in names)]
                for (of, _), shown in zip(judged, figures)
            ]
            if names:
                parts.append(table(["start", "training", *names], rows, f"{task}, split {split}{_how_many(judged[0][1])}"))
        drawn = [(of, path) for of in of_task for path in sorted(of.folder.glob("*.png"))]
        pictures = [picture(path, f"{_start_of(of)}: {_caption(path)}") for of, path in drawn]
        shown = columns(pictures, "wide")
        parts.append(shown if len(pictures) <= MOST_PICTURES else folded(f"Pictures of {task} ({len(drawn)})", shown))
    return "".join(parts)


def differing_constants(named: dict[str, StageRecord]) -> str:
    """The constants of a stage in which several runs differ; "" where they do not."""
    names = list(dict.fromkeys(name for of in named.values() for name in of.config if name not in NOT_COMPARED))
    rows = [[name, *(str(of.config.get(name, "–")) for of in named.values())] for name in names]
    return table(["constant", *named], [row for row in rows if len(set(row[1:])) > 1])


def first_and_last(record: StageRecord) -> str:
    """Every figure of the first and the last epoch, as they were logged."""
    if not record.epochs:
        return ""
    ends = [record.epochs[0], record.epochs[-1]]
    names = list(dict.fromkeys(name for line in ends for name in line if name != "kind"))
    rows = [[name, *(number(line.get(name)) for line in ends)] for name in names]
    return table(["figure", "first epoch", "last epoch"], rows)


def _by_task(records: Sequence[StageRecord]) -> dict[str, list[StageRecord]]:
    found: dict[str, list[StageRecord]] = {}
    for record in records:
        if record.results:
            found.setdefault(record.script.removeprefix("finetune_"), []).append(record)
    return found


def _caption(path: Path) -> str:
    """What a picture that a downstream script has drawn shows."""
    return path.stem.replace("best_median_worst_", "best, median and worst case, split ").replace("_", " ")


def _start_of(record: StageRecord) -> str:
    """What it started from: in a pipeline that is the end of its folder's name."""
    if "-" in record.name:
        return record.name.split("-", 1)[1]
    return record.config.get("start_from") or "random weights"


def _figures(found: dict) -> dict[str, str]:
    """The scores of a split, by their names in words, of any of the three tasks."""
    if "mean" in found and "classes" in found:  # segmentation
        shown = {f"mean {MEASURES.get(measure, measure)}": with_interval(of, 2) for measure, of in found["mean"].items()}
        few = found["classes"] if len(found["classes"]) <= 8 else {}
        return shown | {
            f"Dice of {name.replace('_', ' ')}": with_interval({**of["dice"], "interval": None}, 2) for name, of in few.items()
        }
    if "scores" in found:  # classification
        return {name.replace("_", " "): with_interval(of) for name, of in found["scores"].items()}
    figures = {}  # detection, or the means of several seeds of it
    for name, value in found.items():
        value = value.get("mean") if isinstance(value, dict) else value
        if name.startswith("map") and isinstance(value, (int, float)):
            figures["mAP at 0.5" if name == "map50" else "mAP"] = f"{100 * value:.1f} %"
    return figures


def _how_many(found: dict) -> str:
    for what in ("volumes", "files", "pictures"):
        if isinstance(found.get(what), int):
            return f": {found[what]} {what}, in brackets 95 % intervals"
    return ""
