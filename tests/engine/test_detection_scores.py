import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.detection_results import Judged, write_cases, write_mean, write_results
from engine.detection_scores import OVERLAPS, Boxes, _evaluated, _precision, _ranked, detection_scores, weighted_precision

FINDINGS = ["mass", "node", "heart"]
NOTHING = Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))


def random_boxes(rng, count, like=None):
    """With `like`, near its boxes; with scores of one decimal, so that some are equal."""
    corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(5, 40, (count, 2))
    labels = rng.integers(1, 4, count)
    if like is not None and len(like.labels):
        chosen = rng.integers(0, len(like.labels), count)
        corner = like.boxes[chosen, :2] + rng.normal(0, 2, (count, 2))
        size = (like.boxes[chosen, 2:] - like.boxes[chosen, :2]) * rng.uniform(0.7, 1.3, (count, 2))
        labels = np.where(rng.random(count) < 0.8, like.labels[chosen], labels)
    return Boxes(np.hstack([corner, corner + size]), labels, rng.random(count).round(1))


def random_pictures(seed, pictures=6):
    rng = np.random.default_rng(seed)
    truth = [random_boxes(rng, rng.integers(0, 4)) for _ in range(pictures)]
    return truth, [random_boxes(rng, rng.integers(0, 8), like) for like in truth]


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def average_precision(truth, found, label, least):
    """COCO's rule as a text would say it.

    In each picture, best score first, a found box takes the free true box that it overlaps most, by `least` at least. All found
    boxes in one order by score; at each of 101 recalls the best precision at that recall or beyond; their mean.
    """
    hits, total = [], 0
    for true, seen in zip(truth, found):
        free = [box for box, of in zip(true.boxes, true.labels) if of == label]
        total += len(free)
        mine = [i for i in range(len(seen.labels)) if seen.labels[i] == label]
        for i in sorted(mine, key=lambda i: -seen.scores[i]):
            overlaps = [overlap(seen.boxes[i], box) for box in free]
            hit = bool(overlaps) and max(overlaps) >= least
            if hit:
                free.pop(int(np.argmax(overlaps)))
            hits.append((seen.scores[i], hit))
    if not total:
        return None
    hits = [hit for _, hit in sorted(hits, key=lambda pair: -pair[0])]
    points, right = [], 0
    for place, hit in enumerate(hits, 1):
        right += hit
        points.append((right / total, right / place))
    at = [max([precision for recall, precision in points if recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]
    return float(np.mean(at))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_scores_are_those_of_the_rule_in_words(seed):
    truth, found = random_pictures(seed)
    scores = detection_scores(truth, found, FINDINGS)
    expected = {f: [average_precision(truth, found, label, o) for o in OVERLAPS] for label, f in enumerate(FINDINGS, 1)}
    for finding, values in expected.items():
        mean = None if values[0] is None else pytest.approx(np.mean(values))
        assert (scores["findings"][finding]["ap50"], scores["findings"][finding]["ap"]) == (pytest.approx(values[0]), mean)
    there = [values for values in expected.values() if values[0] is not None]
    assert scores["map"] == (pytest.approx(np.mean(there)) if there else None)
    assert scores["map50"] == (pytest.approx(np.mean([values[0] for values in there])) if there else None)


def test_the_truth_itself_scores_1_and_nothing_found_scores_0():
    truth, _ = random_pictures(0)
    assert detection_scores(truth, truth, FINDINGS)["map"] == pytest.approx(1)
    scores = detection_scores(truth, [NOTHING] * len(truth), FINDINGS)
    assert (scores["map"], scores["map50"]) == (0, 0)


def test_a_finding_that_is_in_no_picture_is_absent_and_in_no_mean():
    box = np.array([[0.0, 0, 10, 10]])
    truth = [Boxes(box, np.array([1]))]
    found = [Boxes(np.vstack([box, box]), np.array([1, 2]), np.array([0.9, 0.8]))]
    scores = detection_scores(truth, found, FINDINGS)
    assert scores["map"] == pytest.approx(1) and scores["findings"]["node"] == {"boxes": 0, "ap": None, "ap50": None}
    empty = detection_scores([NOTHING], found, FINDINGS, ["ann"])
    assert empty["map"] is None and "interval" not in empty


def test_the_precision_of_the_intervals_is_that_of_the_library_on_the_resampled_pictures():
    truth, found = random_pictures(3, pictures=9)
    for times in (np.ones(9, int), np.random.default_rng(0).integers(0, 4, 9)):
        rows = np.repeat(np.arange(9), times)
        library = _precision(_evaluated([truth[i] for i in rows], [found[i] for i in rows], 3))
        judged = _evaluated(truth, found, 3)
        ours = np.stack([weighted_precision(*of, times, judged.params.recThrs) for of in _ranked(judged, 9)])
        np.testing.assert_allclose(ours, library, atol=1e-12)


def test_intervals_resample_subjects_with_all_of_their_pictures():
    truth, found = random_pictures(4, pictures=8)
    alone = detection_scores(truth, found, FINDINGS, [str(i) for i in range(8)])
    assert alone["interval"][0] < alone["map"] < alone["interval"][1]
    one = detection_scores(truth, found, FINDINGS, ["ann"] * 8)
    assert one["interval"] == pytest.approx([one["map"]] * 2)  # there is nobody else to draw


def test_results_are_written_as_figures_cases_coco_and_a_sheet(tmp_path):
    truth, found = random_pictures(5, pictures=3)
    names = [f"{i}.png" for i in range(3)]
    of = Judged(names, names, [(100, 100)] * 3, truth, found)
    results = write_results(tmp_path, {"test": of}, FINDINGS, {"seed": 1}, lambda split, i: np.eye(100))
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == results
    assert results["test"]["map"] == detection_scores(truth, found, FINDINGS)["map"]
    write_cases(tmp_path, [(1, FINDINGS, {"test": of}), (2, FINDINGS[::-1], {"test": of})])
    rows = list(csv.DictReader((tmp_path / "cases.csv").read_text(encoding="utf-8").splitlines()))
    seen = rows[0]["found boxes (finding score x y w h)"].split("; ")
    assert [row["file"] for row in rows] == names * 2 and len(seen) == max(len(found[0].labels), 1)
    assert [row["seed"] for row in rows] == ["1"] * 3 + ["2"] * 3
    true = [row["true boxes (finding x y w h)"] for row in rows]
    assert true[:3] != true[3:]  # each run has findings, and numbers of them, of its own
    told = json.loads((tmp_path / "test_truth.json").read_text(encoding="utf-8"))
    assert len(told["annotations"]) == sum(len(true.labels) for true in truth)
    assert (tmp_path / "test_boxes.png").stat().st_size > 10_000


def test_coco_files_score_the_same_in_the_library_itself(tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = random_pictures(6)
    of = Judged([f"{i}.png" for i in range(6)], [""] * 6, [(100, 100)] * 6, truth, found)
    results = write_results(tmp_path, {"test": of}, FINDINGS, {}, lambda split, i: np.eye(100))
    told = COCO(str(tmp_path / "test_truth.json"))
    judged = COCOeval(told, told.loadRes(str(tmp_path / "test_found.json")), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    assert judged.stats[:2] == pytest.approx([results["test"]["map"], results["test"]["map50"]])


def test_runs_of_several_seeds_have_a_mean_and_a_deviation(tmp_path):
    write_mean(tmp_path, [{"seed": s, "test": {"map": v, "map50": None}} for s, v in [(1, 0.2), (2, 0.4)]])
    mean = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert mean["test"]["map"] == {"mean": pytest.approx(0.3), "deviation": pytest.approx(0.02**0.5), "each": [0.2, 0.4]}
    assert mean["test"]["map50"]["mean"] is None and mean["seeds"] == [1, 2] and "valid" not in mean
