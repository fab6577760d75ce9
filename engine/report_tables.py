"""Tables of the report: what evaluations have scored, and what two runs were told differently."""

from collections.abc import Sequence

from .report_page import table
from .report_starts import file_of_stage
from .report_words import number
from .run_record import StageRecord
from .tables import cell

SHOWN = {
    "knn": "kNN", "linear": "linear probe", "map": "mAP", "precision_at_1": "P@1", "nmi": "NMI", "ari": "ARI",
    "rankme": "RankMe",
}  # fmt: skip
CHANCES = {"knn_chance": "kNN", "map_chance": "mAP"}  # of the files, whatever embeds them
NOT_COMPARED = ("format_version", "dump_path", "pretrained_path", "checkpoint_name", "overwrite", "resume", "config")


def evaluation_tables(evaluation: dict, stages: Sequence[StageRecord] = ()) -> str:
    """What frozen weights know of labels: a table for images and one for volumes, with only the scores that there are.

    stages: those of the run, which have written some of the weights.
    """
    parts = []
    for kind in ("images", "volumes"):
        rows = {name: of[kind] for name, of in evaluation.items() if kind in of}
        scores = [score for score in SHOWN if any(score in of for of in rows.values())]
        if rows and scores:
            first = next(iter(rows.values()))
            caption = f"{first.get('files')} {kind}; labels are told apart within each collection; in brackets 95 % intervals"
            caption += " over files, not over seeds" + "".join(
                f"; {name} by chance: {cell(first, chance)}" for chance, name in CHANCES.items() if chance in first
            )
            parts.append(
                table(
                    ["embedding", *(SHOWN[score] for score in scores)],
                    [[file_of_stage(name, stages), *(cell(of, score) for score in scores)] for name, of in rows.items()],
                    caption,
                )
            )
    return "".join(parts)


def differing_constants(named: dict[str, StageRecord]) -> str:
    """The constants of a stage in which several runs differ; "" where they do not."""
    names = list(dict.fromkeys(name for of in named.values() for name in of.config if name not in NOT_COMPARED))
    rows = [[name, *(str(of.config.get(name, "–")) for of in named.values())] for name in names]
    return table(["constant", *named], [row for row in rows if len(set(row[1:])) > 1])


def first_and_last(record: StageRecord) -> str:
    """Every figure of the first and the last epoch; epochs are counted from 1, as everywhere on the page."""
    if not record.epochs:
        return ""
    ends = [{**line, "epoch": line["epoch"] + 1} for line in (record.epochs[0], record.epochs[-1])]
    names = list(dict.fromkeys(name for line in ends for name in line if name != "kind"))
    rows = [[name, *(number(line.get(name)) for line in ends)] for name in names]
    return table(["figure", "first epoch", "last epoch"], rows)
