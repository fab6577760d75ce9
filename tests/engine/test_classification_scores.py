"""Against scikit-learn, with the cases weighted as a bootstrap draws them.

Where the rules differ: a score that is not defined is NaN here, which the report names. That is the AUC of a class that no
case, or every case, is of (scikit-learn warns and gives NaN, or raises where the classes are more than two and one does not
occur) and F1 of a positive class that neither occurs nor is predicted (scikit-learn warns and gives 0).
"""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.calibration import calibration_curve

from engine.classification_scores import BINS, auc, bins_of, calibration_error, reliability, scores_of


@st.composite
def classified(draw, fewest=2, most=4):
    """labels, probabilities with ties among them, weights of one draw, in which each case may be missing."""
    classes, count = draw(st.integers(fewest, most)), draw(st.integers(4, 40))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    raw = generator.integers(1, 6, (count, classes)).astype(float)
    weights = generator.integers(0, 3, count).astype(float)
    weights[0] += 1
    return generator.integers(0, classes, count), raw / raw.sum(1, keepdims=True), weights


def sklearns(labels, probabilities, weights):
    classes = probabilities.shape[1]
    answers = probabilities.argmax(1)
    drawn = weights > 0
    labels, probabilities, answers, weights = labels[drawn], probabilities[drawn], answers[drawn], weights[drawn]
    common = {"sample_weight": weights}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "f1": metrics.f1_score(labels, answers, average="binary" if classes == 2 else "macro", **common),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, answers, **common),
            "accuracy": metrics.accuracy_score(labels, answers, **common),
            "brier": metrics.brier_score_loss(labels, probabilities, labels=range(classes), **common)
            if classes > 2
            else metrics.brier_score_loss(labels, probabilities[:, 1], pos_label=1, **common),
        }


@settings(max_examples=25, deadline=None)
@given(classified())
def test_scores_of_weighted_cases_are_those_of_scikit_learn(case):
    labels, probabilities, weights = case
    scores = scores_of(labels, probabilities)
    for name, expected in sklearns(labels, probabilities, weights).items():
        found = scores[name](weights[None])[0]
        if name == "balanced_accuracy" and set(labels) > set(labels[weights > 0]):
            expected = np.nan
        assert found == pytest.approx(expected, abs=1e-12, nan_ok=True) or (
            np.isnan(found) and expected == 0 and name == "f1"
        ), name


@settings(max_examples=25, deadline=None)
@given(classified())
def test_the_auc_of_weighted_cases_is_that_of_scikit_learn_or_not_defined(case):
    labels, probabilities, weights = case
    classes = probabilities.shape[1]
    drawn = weights > 0
    found = scores_of(labels, probabilities)["auc"](weights[None])[0]
    occurring = [k for k in range(classes) if 0 < (labels == k).sum() < len(labels)][-1 if classes == 2 else 0 :]
    if occurring and all(0 < (labels[drawn] == k).sum() < drawn.sum() for k in occurring):
        areas = [
            metrics.roc_auc_score(labels[drawn] == k, probabilities[drawn, k], sample_weight=weights[drawn]) for k in occurring
        ]
        assert found == pytest.approx(np.mean(areas), abs=1e-12)
    else:
        assert np.isnan(found)


def test_the_macro_auc_is_scikit_learns_one_against_the_rest():
    generator = np.random.default_rng(0)
    labels, probabilities = generator.integers(0, 3, 60), generator.dirichlet(np.ones(3), 60)
    found = scores_of(labels, probabilities)["auc"](np.ones((1, 60)))[0]
    assert found == pytest.approx(metrics.roc_auc_score(labels, probabilities, multi_class="ovr"))


@settings(max_examples=20, deadline=None)
@given(classified())
def test_a_case_of_weight_two_is_the_case_twice(case):
    labels, probabilities, weights = case
    twice = np.repeat(np.arange(len(labels)), weights.astype(int))
    if len(np.unique(labels[twice])) == len(np.unique(labels)):
        repeated = scores_of(labels[twice], probabilities[twice])
        for name, score in scores_of(labels, probabilities).items():
            np.testing.assert_allclose(score(weights[None]), repeated[name](np.ones((1, len(twice)))), atol=1e-12)


def test_the_calibration_error_is_that_of_the_bins_one_by_one():
    generator = np.random.default_rng(1)
    confidence = np.concatenate([generator.uniform(0.3, 1, 200), [0.0, 1.0, 1 / 15, 2 / 15]])
    hits = generator.uniform(size=len(confidence)) < confidence**2
    expected = 0.0
    for low in np.linspace(0, 1, BINS + 1)[:-1]:
        held = (confidence > low) & (confidence <= low + 1 / BINS + 1e-12) | ((low == 0) & (confidence == 0))
        if held.any():
            expected += held.mean() * abs(hits[held].mean() - confidence[held].mean())
    assert calibration_error(hits, confidence, np.ones((1, len(hits))))[0] == pytest.approx(expected)
    mean, share, many = reliability(hits, confidence)
    theirs = calibration_curve(hits, confidence, n_bins=BINS)
    np.testing.assert_allclose((share[many > 0], mean[many > 0]), theirs)
    assert np.isnan(share[many == 0]).all() and many.sum() == len(hits)


def test_answers_that_are_as_often_right_as_they_are_sure_have_no_calibration_error():
    hits = np.arange(1000) % 10 < 7
    weights = np.ones((1, 1000))
    assert calibration_error(hits, np.full(1000, 0.7), weights)[0] == pytest.approx(0, abs=1e-12)
    assert calibration_error(hits, np.full(1000, 0.9), weights)[0] == pytest.approx(0.2)
    assert bins_of(np.array([0.0, 1 / 15, 0.5, 1.0])).tolist() == [0, 0, 7, 14]


def test_auc_counts_equal_scores_half_and_draws_stand_for_themselves():
    positive, score = np.array([True, False, True, False]), np.array([0.5, 0.5, 0.9, 0.1])
    weights = np.array([[1.0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]])
    np.testing.assert_allclose(auc(positive, score, weights), [0.875, 0.5, 1.0, np.nan])


def test_a_perfect_classifier_and_one_of_one_answer():
    labels = np.array([0, 1, 2, 0, 1, 2])
    perfect = {name: score(np.ones((1, 6)))[0] for name, score in scores_of(labels, np.eye(3)[labels]).items()}
    assert perfect == {"auc": 1, "f1": 1, "balanced_accuracy": 1, "accuracy": 1, "calibration_error": 0, "brier": 0}
    always = {name: score(np.ones((1, 6)))[0] for name, score in scores_of(labels, np.eye(3)[np.zeros(6, int)]).items()}
    assert (always["auc"], always["balanced_accuracy"]) == (0.5, pytest.approx(1 / 3)) and always["f1"] == pytest.approx(1 / 6)


def test_draws_that_lack_a_class_have_neither_area_nor_balanced_accuracy():
    labels = np.array([0, 0, 1])
    scores = scores_of(labels, np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]))
    weights = np.array([[1.0, 1, 1], [2, 1, 0]])  # without the second draw's only case of class 1, it is class 0's recall
    for name, value in (("balanced_accuracy", 0.75), ("auc", 0.5)):
        np.testing.assert_allclose(scores[name](weights), [value, np.nan])
    of_three = scores_of(labels, np.insert(np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), 2, 0, axis=1))
    np.testing.assert_allclose(of_three["balanced_accuracy"](weights), [0.75, np.nan])  # a class of no case is in no mean
