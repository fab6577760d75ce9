"""What downstream runs started from, and what a start is worth, in words."""

from collections.abc import Sequence
from pathlib import Path

from .bootstrap import Estimate
from .folder import NOT_COMPARED, PATHS
from .report_words import DOUBTFUL, GOOD, Verdict
from .run_record import StageRecord
from .segmented_cases import dice_by_case, dice_difference
from .words import counted

LEARNS = {"full": "all weights", "frozen": "all but the pretrained weights", "linear": "a linear map on frozen features"}
PIPELINE_ENDINGS = ("", "-context", "-linear")  # of the folders of run_pipeline.py's segmentations, after what they start from
# differ with what is started from, or are told in words of their own
OF_THE_START = {"arch", "d_model", "normalise", "sampling", "pretrained_rate", "context", "seed", "seeds", "preset"}
FAILED = 0.05  # a Dice below it: the class is not found


def name_of(record: StageRecord) -> str:
    """What it is called: what it started from; in a pipeline the end of its folder's name, which also tells how it learned."""
    if "start_from" not in record.config:
        return record.name
    start = _file_of(record)
    of_pipeline = {(Path(start).stem or "random") + ending for ending in PIPELINE_ENDINGS}
    named = record.name.removeprefix("segmentation-")
    return named if named in of_pipeline and named != record.name else start or "random weights"


def names_of(records: Sequence[StageRecord]) -> list[str]:
    """Their names; those that several would have with their folders'."""
    names = [name_of(of) for of in records]
    return [f"{name} ({of.name})" if names.count(name) > 1 else name for name, of in zip(names, records)]


def weights_of(record: StageRecord, stages: Sequence[StageRecord]) -> str:
    """The weights that it started from, and which of the run's stages has written them; – where that is not known."""
    if "start_from" not in record.config:
        return "–"
    file = _file_of(record)
    return file_of_stage(file, stages) if file else "random"


def _file_of(record: StageRecord) -> str:
    return record.config["start_from"] or record.config.get("resnet_pretrained") or ""


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


def segmentation_verdicts(
    records: Sequence[StageRecord], split: str = "test", elsewhere: Sequence[StageRecord] = ()
) -> list[Verdict]:
    """What each start's segmentations of a split are worth, held against random weights on the same volumes.

    elsewhere: of the other runs of the page, whose random weights serve where a run has none of its own.
    """
    judged, beside = ([of for of in some if _is_segmentation(of.results.get(split))] for some in (records, elsewhere))
    told = [of for of in judged if not is_random(of) or failed_classes(of.results[split])]
    return [_verdict(of, judged, beside, split) for of in sorted(told, key=is_random)]  # what the weights are worth comes first


def _is_segmentation(found) -> bool:
    return isinstance(found, dict) and "mean" in found and "classes" in found


def _verdict(record: StageRecord, others: Sequence[StageRecord], elsewhere: Sequence[StageRecord], split: str) -> Verdict:
    found = record.results[split]
    failed = failed_classes(found)
    fails = "fails on " + ", ".join(f"{name} (Dice {dice:.2f})" for name, dice in failed.items()) if failed else ""
    about = f"Segmentation from {name_of(record)}: "
    if is_random(record):
        return Verdict(DOUBTFUL, f"{about}{fails}.")
    dice = found["mean"]["dice"]["value"]
    dice = "no Dice" if dice is None else f"mean Dice {dice:.2f}"
    if "start_from" not in record.config:
        why = "what it started from is not known, since no config.yaml says it"
        return Verdict(
            DOUBTFUL, "; ".join(part for part in (f"Segmentation of {record.name}: {dice}", why, fails) if part) + "."
        )
    about += dice
    random, compared = _random_beside(record, others, elsewhere, split)
    if random is None:
        why = "nothing from random weights was judged on the same volumes, so what it is worth is not known"
        return Verdict(DOUBTFUL, "; ".join(part for part in (about, why, fails) if part) + ".")
    seeds = counted(len(found["seeds"]), "seed") if "seeds" in found else "an unknown number of seeds"
    against = name_of(random) + (f" of {random.folder}" if random in elsewhere else "")
    about += f", {_signed(compared)} against {against}, paired over {counted(compared.cases, f'{split} volume')}, {seeds}"
    better, unlike = compared.low > 0, _told_otherwise(record, random)
    notes = [
        "" if better or compared.high < 0 else "these volumes do not tell them apart",
        fails,
        "" if has_context(record) == has_context(random) else "f_inter takes part in one of the two networks only",
        f"the two differ in {', '.join(unlike)}, too" if unlike else "",
    ]
    level = GOOD if better and not failed and not unlike else DOUBTFUL
    return Verdict(level, "; ".join(part for part in (about, *notes) if part) + ".")


def _random_beside(
    record: StageRecord, others: Sequence[StageRecord], elsewhere: Sequence[StageRecord], split: str
) -> tuple[StageRecord, Estimate] | tuple[None, None]:
    """The random start that learned the same weights and was judged on the same volumes, and the difference to it.

    That of the same run comes first, and then the one with the same network.
    """
    alike = [of for of in (*others, *elsewhere) if is_random(of) and of.config.get("tune") == record.config.get("tune")]
    for random in sorted(alike, key=lambda of: (of in elsewhere, has_context(of) != has_context(record))):
        compared = _difference(record, random, split)
        if compared:
            return random, compared
    return None, None


def _told_otherwise(record: StageRecord, random: StageRecord) -> list[str]:
    """The constants in which two runs differ beside what they start from."""
    known = record.config.keys() & random.config.keys() - NOT_COMPARED - PATHS - OF_THE_START
    return sorted(name for name in known if record.config[name] != random.config[name])


def _difference(record: StageRecord, random: StageRecord, split: str) -> Estimate | None:
    """In Dice; None where the tables of cases are not there, or are of other volumes or classes."""
    if _judged_on(record, split) != _judged_on(random, split):
        return None
    tables = [of.folder / "cases.csv" for of in (record, random)]
    if not all(path.is_file() for path in tables):
        return None
    ours, theirs = (dice_by_case([path], split) for path in tables)
    return dice_difference(ours, theirs) if ours and ours.keys() == theirs.keys() else None


def _judged_on(record: StageRecord, split: str) -> tuple[Path, list[str]]:
    """The folder of its data, and its classes: volumes of other data may have the same names."""
    return Path(record.constants().data_path).resolve(), list(record.results[split]["classes"])


def _signed(found: Estimate) -> str:
    """ "−0.35 (−0.38 to −0.31)"."""
    value, low, high = (f"{of:+.2f}".replace("-", "−") for of in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})" if found.subjects > 1 else value
