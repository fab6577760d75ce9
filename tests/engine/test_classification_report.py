import csv
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from engine.classification_report import Predictions, show, write_report
from engine.errors import UserError

NAMES = ["atelectasis", "cardiomegaly", "nodule"]


def predictions(seed=1, classes=3, count=40, labels=None, split="test"):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes if labels is None else labels
    probabilities = generator.dirichlet(np.ones(classes), count) + 0.5 * np.eye(classes)[labels]
    files = [f"x/{i:02d}.png" for i in range(count)]
    subjects = [f"p{i // 2}" for i in range(count)]
    return Predictions(seed, split, files, subjects, labels, probabilities / probabilities.sum(1, keepdims=True))


def test_scores_have_intervals_over_subjects_and_are_the_mean_of_seeds(tmp_path):
    several = [predictions(seed) for seed in (1, 2, 3)]
    found = write_report(tmp_path, several, NAMES)["test"]
    assert (found["files"], found["subjects"], found["seeds"], found["positive"]) == (40, 20, [1, 2, 3], None)
    areas = [roc_auc_score(of.labels, of.probabilities, multi_class="ovr") for of in several]
    figures = found["scores"]["auc"]
    assert figures["value"] == pytest.approx(np.mean(areas)) and figures["deviation"] == pytest.approx(np.std(areas, ddof=1))
    assert list(figures["seeds"].values()) == pytest.approx(areas)
    for name, figures in (found["scores"] | found["auc_of_class"]).items():
        low, high = figures["interval"]
        assert low < figures["value"] < high or (name == "calibration_error" and 0 < low < high < 1)
    assert list(found["auc_of_class"]) == NAMES and found["auc_not_defined_for"] == []
    assert set(found["scores"]) == {"auc", "f1", "balanced_accuracy", "accuracy", "calibration_error", "brier"}


def test_seeds_are_compared_file_by_file_in_whatever_order_they_come(tmp_path):
    one = predictions(1)
    order = np.random.default_rng(0).permutation(len(one.files))
    files, subjects = [one.files[i] for i in order], [one.subjects[i] for i in order]
    shuffled = Predictions(2, "test", files, subjects, one.labels[order], one.probabilities[order])
    found = write_report(tmp_path, [one, shuffled], NAMES)["test"]
    alone = write_report(tmp_path, [one], NAMES)["test"]
    assert found["scores"]["auc"]["interval"] == pytest.approx(alone["scores"]["auc"]["interval"])
    assert found["scores"]["auc"]["deviation"] == pytest.approx(0)


def test_a_class_that_does_not_occur_is_named_and_not_in_the_mean(tmp_path, capsys):
    labels = np.arange(40) % 2  # no nodule
    found = write_report(tmp_path, [predictions(labels=labels)], NAMES)
    assert found["test"]["auc_not_defined_for"] == ["nodule"] and found["test"]["auc_of_class"]["nodule"]["value"] is None
    others = [found["test"]["auc_of_class"][name]["value"] for name in NAMES[:2]]
    assert found["test"]["scores"]["auc"]["value"] == pytest.approx(np.mean(others))
    show(found)
    shown = " ".join(capsys.readouterr().out.split())
    assert "nodule: its auc is not defined" in shown and "over the others" in shown and "not defined │" in shown


def test_with_one_class_alone_there_is_no_auc(tmp_path, capsys):
    found = write_report(tmp_path, [predictions(classes=2, labels=np.zeros(40, int))], ["no", "yes"])
    assert found["test"]["scores"]["auc"]["value"] is None and found["test"]["scores"]["auc"]["interval"] is None
    assert found["test"]["auc_not_defined_for"] == ["no", "yes"] and found["test"]["positive"] == "yes"
    show(found)
    assert "over the others" not in capsys.readouterr().out


def test_the_files_hold_every_probability_and_the_figures(tmp_path):
    several = [predictions(1), predictions(2), predictions(1, count=10, split="valid")]
    results = write_report(tmp_path, several, NAMES)
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == results and list(results) == ["test", "valid"]
    with open(tmp_path / "cases.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "subject", "split", "seed", "label", *(f"probability_{name}" for name in NAMES)]
    assert len(rows) == 90 and rows[41]["label"] == "cardiomegaly" and rows[41]["seed"] == "2"
    assert [float(rows[41][f"probability_{name}"]) for name in NAMES] == several[1].probabilities[1].tolist()


def test_seeds_that_were_scored_on_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="seed 2 was scored on other files than seed 1"):
        write_report(tmp_path, [predictions(1), predictions(2, count=38)], NAMES)
    assert not list(tmp_path.iterdir())
