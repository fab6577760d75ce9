"""What downstream runs started from, and what a start is worth, in words."""

from collections.abc import Sequence

from .bootstrap import Estimate
from .report_words import DOUBTFUL, GOOD, Verdict
from .run_record import StageRecord
from .segmented_cases import dice_by_case, dice_difference
from .words import counted

LEARNS = {"full": "all weights", "frozen": "all but the pretrained weights", "linear": "a linear map on frozen features"}
FAILED = 0.05  # a Dice below it: the class is not found


def name_of(record: StageRecord) -> str:
    """What it is called: in a pipeline that is the end of its folder's name."""
    if "-" in record.name:
        return record.name.split("-", 1)[1]
    return record.config.get("start_from") or "random weights"


def weights_of(record: StageRecord, stages: Sequence[StageRecord]) -> str:
    """The weights that it started from, and which of the run's stages has written them."""
    if not record.config:
        return "–"
    file = record.config.get("start_from") or record.config.get("resnet_pretrained")
    return file_of_stage(file, stages) if file else "random"


def file_of_stage(file: str, stages: Sequence[StageRecord]) -> str:
    """A weight file by its name, with the one of these stages that has written it."""
    written = next((of for of in stages if of.config.get("checkpoint_name") == file), None)
    return f"stage {written.stage} ({file})" if written else file


def learns(record: StageRecord) -> str:
    return LEARNS.get(record.config.get("tune"), "–")


def has_context(record: StageRecord) -> bool:
    """Whether f_inter tells it what a slice is in its volume."""
    return bool(record.config.get("context"))


def is_random(record: StageRecord) -> bool:
    return weights_of(record, []) == "random"


def failed_classes(found: dict) -> dict[str, float]:
    """The Dice of those classes of a split that are not found."""
    scores = {name: of["dice"]["value"] for name, of in found["classes"].items()} if _is_segmentation(found) else {}
    return {name.replace("_", " "): dice for name, dice in scores.items() if dice is not None and dice < FAILED}


def segmentation_verdicts(records: Sequence[StageRecord], split: str = "test") -> list[Verdict]:
    """What each start's segmentations of a split are worth, held against random weights on the same volumes."""
    judged = [of for of in records if _is_segmentation(of.results.get(split))]
    told = [of for of in judged if not is_random(of) or failed_classes(of.results[split])]
    return [_verdict(of, judged, split) for of in sorted(told, key=is_random)]  # what the weights are worth comes first


def _is_segmentation(found) -> bool:
    return isinstance(found, dict) and "mean" in found and "classes" in found


def _verdict(record: StageRecord, others: Sequence[StageRecord], split: str) -> Verdict:
    found = record.results[split]
    failed = failed_classes(found)
    fails = "fails on " + ", ".join(f"{name} (Dice {dice:.2f})" for name, dice in failed.items()) if failed else ""
    about = f"Segmentation from {name_of(record)}: "
    if is_random(record):
        return Verdict(DOUBTFUL, f"{about}{fails}.")
    dice = found["mean"]["dice"]["value"]
    about += "no Dice" if dice is None else f"mean Dice {dice:.2f}"
    random = _random_beside(record, others)
    compared = random and _difference(record, random, split)
    if not compared:
        why = "nothing from random weights was judged on the same volumes, so what it is worth is not known"
        return Verdict(DOUBTFUL, "; ".join(part for part in (about, why, fails) if part) + ".")
    seeds = counted(len(found["seeds"]), "seed") if "seeds" in found else "an unknown number of seeds"
    about += (
        f", {_signed(compared)} against {name_of(random)}, paired over {counted(compared.cases, f'{split} volume')}, {seeds}"
    )
    same = has_context(record) == has_context(random)
    other = "" if same else "f_inter takes part in one of the two networks only"
    better = compared.low > 0
    unsure = "" if better or compared.high < 0 else "these volumes do not tell them apart"
    level = GOOD if better and not failed else DOUBTFUL
    return Verdict(level, "; ".join(part for part in (about, unsure, fails, other) if part) + ".")


def _random_beside(record: StageRecord, others: Sequence[StageRecord]) -> StageRecord | None:
    """The random start that learned the same weights, the one with the same network if there is one."""
    alike = [of for of in others if is_random(of) and of.config.get("tune") == record.config.get("tune")]
    return min(alike, key=lambda of: has_context(of) != has_context(record), default=None)


def _difference(record: StageRecord, random: StageRecord, split: str) -> Estimate | None:
    """In Dice; None where the tables of cases are not there, or are of other volumes."""
    tables = [of.folder / "cases.csv" for of in (record, random)]
    if not all(path.is_file() for path in tables):
        return None
    ours, theirs = (dice_by_case([path], split) for path in tables)
    return dice_difference(ours, theirs) if ours and ours.keys() == theirs.keys() else None


def _signed(found: Estimate) -> str:
    """ "−0.35 (−0.38 to −0.31)"."""
    value, low, high = (f"{of:+.2f}".replace("-", "−") for of in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})" if found.subjects > 1 else value
