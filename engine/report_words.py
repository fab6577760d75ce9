"""What the figures of a run mean, in words: how it went, and whether it collapsed."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from .repeated import kind_of
from .run_record import StageRecord

GOOD, DOUBTFUL, BAD = "good", "doubtful", "bad"
FAMILIES = ("images", "volumes", "slices")
LAYERS = {"images": "projections", "volumes": "embeddings", "slices": "projections"}  # which the guard has seen
METHODS = {1: "f_intra by {} of pictures", 2: "f_inter by masked slices, after {}", 3: "both by {} of volumes and slices"}
PREDICTED = "label predicted from the nearest neighbours of the same collection"
AT_CHANCE, HARDLY_BELOW, LOW_RANK = 0.99, 0.95, 2.0  # shares of ln K; RankMe
HARDLY_BETTER, WORSE = 0.02, 0.05  # R² over interpolation; a loss of kNN
MANY_CLUSTERS, CROWDED = 10, 0.2  # with more of them, one that holds a larger share is too large


class Verdict(NamedTuple):
    """level: GOOD, DOUBTFUL or BAD; collapsed: whether it is bad for that reason."""

    level: str
    sentence: str
    collapsed: bool = False


def stage_name(stage: StageRecord) -> str:
    """What a stage learns, and how."""
    return f"Stage {stage.stage}: {METHODS[stage.stage].format(stage.method)}"


def number(value: float | int | None) -> str:
    """A figure as people read it; of every size, four digits at most."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{value:,.0f}".replace(",", "\u202f")
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    return f"{value:.3g}" if abs(value) >= 0.0001 or value == 0 else f"{value:.1e}"


def verdicts(stage: StageRecord, evaluation: dict | None = None) -> list[Verdict]:
    """What the last epoch of a stage says of it, each family of embeddings by itself, and an evaluation of its weights."""
    if not stage.epochs:
        return [Verdict(DOUBTFUL, "No epoch is finished, so there is nothing to judge.")]
    last = stage.epochs[-1]
    found = [_of_family(family, last) for family in FAMILIES if last.get(f"{family}_ln_k") is not None]
    if last.get("r2_mean") is not None:
        found.append(_of_masked(last))
    found += _of_held_out(stage)
    if stage.about:  # else the evaluated weights may be another run's
        found += _of_evaluation(stage.config.get("checkpoint_name"), evaluation or {})
    if stage.unfinished:
        found.append(Verdict(DOUBTFUL, f"It is not finished: {stage.unfinished}."))
    return found


def cluster_use(counts: Sequence[int], what: str) -> Verdict:
    """How evenly whole files fall to clusters, of which counts (K,) says how many each holds. what: they are called."""
    held, used = sum(counts), sum(count > 0 for count in counts)
    share = max(counts) / held
    told = (
        f"{what}, whole and not augmented: {used} of {len(counts)} clusters are the nearest one of any of {held}; the largest "
        f"holds {100 * share:.0f} %"
    )
    if used == 1 < min(len(counts), held):
        return Verdict(BAD, told + ": all fall to the same one, a collapse.", collapsed=True)
    if used < min(len(counts), held) / 2:
        return Verdict(DOUBTFUL, told + ": fewer than half are used.")
    if len(counts) > MANY_CLUSTERS and share > CROWDED:
        return Verdict(DOUBTFUL, told + ", over a fifth.")
    return Verdict(GOOD, told + ".")


def overall(found: Sequence[Verdict]) -> Verdict:
    """One answer to: did it collapse?"""
    levels = [verdict.level for verdict in found]
    if BAD in levels:
        if any(verdict.collapsed for verdict in found):
            return Verdict(BAD, "Yes: the lines marked ✗ say what collapsed.", collapsed=True)
        return Verdict(BAD, "No collapse, but some of it never learned: the lines marked ✗ say what.")
    if DOUBTFUL in levels:
        return Verdict(DOUBTFUL, "No collapse, but not all of it was learned: the lines marked ▲ say what.")
    return Verdict(GOOD, "No: embeddings differ from file to file, and losses are below those of a guess.")


def warnings_in_words(of_epochs: Sequence[Sequence[str]]) -> list[str]:
    """The guard's warnings of each epoch → one line for each family and kind of warning, with its epochs and last wording."""
    seen: dict[str, list[int]] = {}
    wording: dict[str, str] = {}
    for epoch, sentences in enumerate(of_epochs, 1):
        for sentence in sentences:
            kind = kind_of(sentence)
            seen.setdefault(kind, []).append(epoch)
            wording[kind] = sentence
    return [f"{_spans(epochs)}: {wording[kind]}" for kind, epochs in seen.items()]


def _of_family(family: str, last: dict) -> Verdict:
    loss, ln_k, rank, used, rows = (last.get(f"{family}_{n}") for n in ("loss", "ln_k", "rank", "clusters_used", "rows"))
    clusters = round(math.exp(ln_k))
    possible = min(clusters, rows or clusters)
    about = (
        f"{family.capitalize()}: the loss is {number(loss)}, {100 * loss / ln_k:.0f} % of ln K = {number(ln_k)}; "
        f"{used} of {possible} possible clusters were assigned in its batches; RankMe of {LAYERS[family]} is {number(rank)}"
        if ln_k and loss is not None and rank is not None and used is not None
        else f"{family.capitalize()}: the figures of the last epoch are incomplete"
    )
    if loss is None or rank is None or used is None:
        return Verdict(DOUBTFUL, about + ".")
    if rank < LOW_RANK <= (rows or 2):
        return Verdict(BAD, about + ": all embeddings are nearly the same, a collapse.", collapsed=True)
    if used < possible / 2:
        return Verdict(BAD, about + ": most clusters are empty, a collapse.", collapsed=True)
    if clusters > 1 and abs(loss - ln_k) <= (1 - AT_CHANCE) * ln_k:
        return Verdict(BAD, about + ": at ln K all prototypes score alike, so nothing was learned.")
    if clusters > 1 and loss > ln_k:
        return Verdict(DOUBTFUL, about + ": above ln K, so it does worse than guessing.")
    if clusters > 1 and loss > HARDLY_BELOW * ln_k:
        return Verdict(DOUBTFUL, about + ": hardly below ln K, little was learned.")
    return Verdict(GOOD, about + ".")


def _of_held_out(stage: StageRecord) -> list[Verdict]:
    """kNN of each epoch."""
    first, last = (line.get("knn_held_out") for line in (stage.epochs[0], stage.epochs[-1]))
    if last is None:
        return []
    compared = first is not None and len(stage.epochs) > 1
    moved = f" ({100 * first:.0f} % after the first epoch)" if compared else ""
    told = f"kNN in training: {PREDICTED}, {100 * last:.0f} % of the held-out files right{moved}."
    return [Verdict(DOUBTFUL if compared and last < first - WORSE else GOOD, told)]


def _of_evaluation(weights: str, evaluation: dict) -> list[Verdict]:
    """kNN of frozen weights beside what needs no training, for each kind of files."""
    found = []
    for kind, of in evaluation.get(weights, {}).items():
        if "knn" not in of:
            continue
        others = {name: evaluation.get(name, {}).get(kind, {}).get("knn") for name in ("random weights", "raw pixels")}
        others["always the most frequent label"] = of.get("knn_chance")
        beside = ", ".join(f"{name} {100 * share:.1f} %" for name, share in others.items() if share is not None)
        told = f"kNN in the evaluation: {PREDICTED}, {100 * of['knn']:.1f} % of {of['knn_files']} {kind} right"
        told += f" ({beside})" * bool(beside)
        alike = others["random weights"] is not None and of["knn_interval"][0] <= others["random weights"]
        found.append(Verdict(DOUBTFUL, told + ": not told apart from random weights.") if alike else Verdict(GOOD, told + "."))
    return found


def _of_masked(last: dict) -> Verdict:
    mean, beyond = last["r2_mean"], last.get("r2_interpolation")
    about = f"Masked slices: R² is {mean:.3f} against their mean"
    about += "" if beyond is None else f" and {beyond:.3f} against interpolating between the neighbours"
    if mean < 0:
        return Verdict(BAD, about + ": predictions are worse than always saying the mean.")
    if beyond is not None and beyond <= HARDLY_BETTER:
        return Verdict(DOUBTFUL, about + ": interpolating is about as good, so f_inter adds little yet.")
    return Verdict(GOOD, about + ".")


def _spans(epochs: list[int]) -> str:
    """ "epoch 1", "epochs 1–3, 7"."""
    spans: list[list[int]] = []
    for epoch in epochs:
        if spans and epoch == spans[-1][1] + 1:
            spans[-1][1] = epoch
        else:
            spans.append([epoch, epoch])
    words = [f"{a}" if a == b else f"{a}–{b}" for a, b in spans]
    shown = ", ".join(words[:5]) + (f" and {len(words) - 5} more times" if len(words) > 5 else "")
    return f"Epoch{'s' if len(epochs) > 1 else ''} {shown}"
