"""Average precision of found boxes by COCO's rules, computed by pycocotools; with intervals over subjects."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OVERLAPS = np.linspace(0.5, 0.95, 10)  # least intersection over union with the truth, of a hit
MOST_FOUND = 100  # boxes of a finding that count in a picture, best first
RESAMPLES = 500
LEVEL = 95  # per cent of the resamples that lie in an interval


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture, those that are true or those that were found.

    boxes: (n, 4) x1, y1, x2, y2 in pixels; labels: (n,) from 1 on; scores: (n,), of what was found.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


def detection_scores(
    truth: Sequence[Boxes], found: Sequence[Boxes], findings: Sequence[str], subjects: Sequence[str] = ()
) -> dict:
    """map (mean over findings and over overlaps of 0.5 to 0.95) and map50, of pictures in one order; and both of each finding.

    A finding that no picture has by the truth has None, and is in no mean; nothing found of one that is there scores 0.
    subjects: of the pictures; where they are given, `interval` and `interval50` hold what 95 % of resamples of them score.
    """
    judged = _evaluated(truth, found, len(findings))
    precision = _precision(judged)
    counts = np.bincount(np.concatenate([of.labels for of in truth]).astype(int), minlength=len(findings) + 1)[1:]
    each = {
        finding: {"boxes": int(count), "ap": _number(of.mean()), "ap50": _number(of[0].mean())}
        for finding, count, of in zip(findings, counts, precision)
    }
    figures = {"pictures": len(truth), "boxes": int(counts.sum()), **_means(precision)}
    if len(subjects):
        figures |= _intervals(judged, np.asarray(subjects))
    return {**figures, "findings": each}


def coco_files(
    truth: Sequence[Boxes], found: Sequence[Boxes], findings: Sequence[str], names: Sequence[str] = (), sizes: Sequence = ()
) -> tuple[dict, list[dict]]:
    """Truth and results as COCO's files have them. Numbers of pictures and of annotations begin at 1, as pycocotools needs."""
    pictures = [{"id": number} for number in range(1, len(truth) + 1)]
    for picture, name, (height, width) in zip(pictures, names, sizes):
        picture |= {"file_name": name, "height": int(height), "width": int(width)}
    categories = [{"id": label, "name": finding} for label, finding in enumerate(findings, 1)]
    annotations = [
        {**annotation, "id": number, "iscrowd": 0, "area": annotation["bbox"][2] * annotation["bbox"][3]}
        for number, annotation in enumerate(_annotations(truth), 1)
    ]
    return {"images": pictures, "categories": categories, "annotations": annotations}, _annotations(found)


def _annotations(pictures: Sequence[Boxes]) -> list[dict]:
    rows = []
    for number, of in enumerate(pictures, 1):
        scores = [{}] * len(of.labels) if of.scores is None else [{"score": float(score)} for score in of.scores]
        for (x1, y1, x2, y2), label, score in zip(of.boxes.tolist(), of.labels, scores):
            rows.append({"image_id": number, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], **score})
    return rows


def _evaluated(truth: Sequence[Boxes], found: Sequence[Boxes], findings: int):
    """A COCOeval that has matched what was found with the truth, in each picture."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    told, results = coco_files(truth, found, [str(number) for number in range(findings)])
    results = [
        {**row, "id": number, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]} for number, row in enumerate(results, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for annotations in (told["annotations"], results):
            sides.append(COCO())
            sides[-1].dataset = {**told, "annotations": annotations}
            sides[-1].createIndex()
        judged = COCOeval(*sides, "bbox")
        judged.params.maxDets = [MOST_FOUND]
        judged.params.areaRng, judged.params.areaRngLbl = [[0, float("inf")]], ["all"]
        judged.evaluate()
    return judged


def _precision(judged) -> np.ndarray:
    """(findings, overlaps, 101 recalls), NaN for findings that are in no picture by the truth."""
    with contextlib.redirect_stdout(io.StringIO()):
        judged.accumulate()
    precision = judged.eval["precision"][:, :, :, 0, 0].transpose(2, 0, 1)
    return np.where(precision < 0, np.nan, precision)


def _means(precision: np.ndarray) -> dict:
    there = ~np.isnan(precision[:, 0, 0])
    means = precision[there].mean((0, 2)) if there.any() else np.full(len(OVERLAPS), np.nan)
    return {"map": _number(means.mean()), "map50": _number(means[0])}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _intervals(judged, subjects: np.ndarray) -> dict:
    """Percentiles of the scores of as many subjects, drawn with replacement, each with all of its pictures."""
    names, subject_of = np.unique(subjects, return_inverse=True)
    ranked, draws, drawn = _ranked(judged, len(subjects)), np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        times = np.bincount(draws.integers(len(names), size=len(names)), minlength=len(names))[subject_of]
        drawn.append(_means(np.stack([weighted_precision(*of, times, judged.params.recThrs) for of in ranked])))
    edges = (50 - LEVEL / 2, 50 + LEVEL / 2)
    intervals = {}
    for name in ("map", "map50"):
        values = [of[name] for of in drawn if of[name] is not None]
        if values:
            intervals[name.replace("map", "interval")] = [float(edge) for edge in np.percentile(values, edges)]
    return intervals


def _ranked(judged, pictures: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each finding: whether boxes are hits (overlaps, n), best first; their pictures (n,); true boxes a picture."""
    matches, ranked = np.array(judged.evalImgs, object).reshape(-1, pictures), []
    for of in matches:
        there = [(picture, match) for picture, match in enumerate(of) if match is not None]
        true = np.zeros(pictures)
        for picture, match in there:
            true[picture] = len(match["gtIds"])
        hits = np.concatenate([np.zeros((len(OVERLAPS), 0)), *(match["dtMatches"] for _, match in there)], axis=1) > 0
        scores = np.concatenate([[], *(match["dtScores"] for _, match in there)])
        rows = np.concatenate([[], *(np.full(len(match["dtScores"]), picture) for picture, match in there)]).astype(int)
        order = np.argsort(-scores, kind="stable")
        ranked.append((hits[:, order], rows[order], true))
    return ranked


def weighted_precision(
    hits: np.ndarray, pictures: np.ndarray, true: np.ndarray, times: np.ndarray, recalls: np.ndarray
) -> np.ndarray:
    """(overlaps, recalls) interpolated precision where each picture counts `times` (pictures,); NaN where no box is true.

    hits: (overlaps, n) bool, best first, in `pictures` (n,); true: boxes a picture. With all times 1 it is COCO's.
    """
    if not true @ times:
        return np.full((len(hits), len(recalls)), np.nan)
    right, all_found = np.cumsum(hits * times[pictures], axis=1), np.cumsum(times[pictures])
    precision = right / np.maximum(all_found, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([precision, np.zeros((len(hits), 1))], axis=1)  # a recall that is never reached
    places = [np.searchsorted(recall, recalls, side="left") for recall in right / (true @ times)]
    return np.stack([row[place] for row, place in zip(padded, places)])
