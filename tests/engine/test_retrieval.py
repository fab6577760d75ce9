import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from engine.retrieval import expected_precision, ranking_scores, retrieval_scores, retrieved, subject_interval


def files(seed=0, n=40, labels=3, groups=2, subjects=15, levels=0):
    """Embeddings, labels, collections, subjects; with few `levels`, many are equal."""
    rng = np.random.default_rng(seed)
    embeddings = rng.integers(0, levels, (n, 3)).astype(float) if levels else rng.normal(size=(n, 5))
    return embeddings, rng.integers(0, labels, n), rng.integers(0, groups, n), rng.integers(0, subjects, n)


def one_by_one(embeddings, labels, groups, subjects):
    """(average precision, precision at 1, at 5) of each row, None where it asks nothing. No two files are equally near."""
    answers = []
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if groups[j] == groups[i] and subjects[j] != subjects[i]]
        cosine = {
            j: embeddings[i] @ embeddings[j] / np.linalg.norm(embeddings[i]) / np.linalg.norm(embeddings[j]) for j in others
        }
        hits = [labels[j] == labels[i] for j in sorted(others, key=cosine.get, reverse=True)]
        if not any(hits):
            answers.append(None)
            continue
        precisions = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
        answers.append((np.mean(precisions), float(hits[0]), np.mean(hits[:5])))
    return answers


@pytest.mark.parametrize("seed, n", [(0, 40), (1, 40), (2, 12)])
def test_every_query_is_scored_as_a_loop_over_the_ranked_files_scores_it(seed, n):
    given = files(seed, n)
    found = retrieved(*given)
    for row, told in enumerate(one_by_one(*given)):
        assert found.asked[row] == (told is not None)
        if told:
            assert (found.precision[row], found.at_1[row], found.at_5[row]) == pytest.approx(told)


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_average_precision_is_scikit_learns_where_no_files_are_equally_near(seed):
    rng = np.random.default_rng(seed)
    similar, relevant = rng.permuted(np.tile(np.arange(9.0), (5, 1)), axis=1), rng.random((5, 9)) < 0.4
    relevant[:, 0] = True
    ours = ranking_scores(similar, relevant, np.full(5, 9))[0]
    assert ours == pytest.approx([average_precision_score(*row) for row in zip(relevant, similar)])


def test_precisions_are_the_means_over_all_orders_of_equally_near_files():
    similar, relevant = np.array([[3.0, 2.0, 2.0, 2.0, 1.0, 1.0, 0.0]]), np.array([[0, 1, 0, 0, 1, 0, 1]], bool)
    orders = [[0, *middle, *end, 6] for middle in itertools.permutations((1, 2, 3)) for end in itertools.permutations((4, 5))]
    average, *at = ranking_scores(similar, relevant, np.array([7]))
    assert average == pytest.approx(np.mean([average_precision_score(relevant[0, order], range(7, 0, -1)) for order in orders]))
    for k, ours in zip((1, 5), at):
        assert ours == pytest.approx(np.mean([relevant[0, order[:k]].mean() for order in orders]))


@pytest.mark.parametrize("relevant, ranked", [(1, 1), (1, 6), (2, 6), (5, 6), (6, 6), (0, 6)])
def test_chance_is_the_mean_over_all_orders(relevant, ranked):
    hits = [1] * relevant + [0] * (ranked - relevant)
    scores = []
    for order in itertools.permutations(hits):
        precision = np.cumsum(order) / np.arange(1, ranked + 1)
        scores.append((precision * order).sum() / max(relevant, 1))
    assert expected_precision(np.array([relevant]), np.array([ranked]))[0] == pytest.approx(np.mean(scores))


def test_an_encoder_that_makes_all_files_alike_scores_as_chance_does_however_files_are_sorted():
    labels = np.array(["a"] * 4 + ["b"] * 4)
    scores = retrieval_scores(np.ones((8, 3)), labels, np.zeros(8), np.arange(8))
    assert [scores[name] for name in ("precision_at_1", "precision_at_5")] == pytest.approx([3 / 7] * 2)
    assert scores["map"] == pytest.approx(scores["map_chance"])


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3), st.sampled_from([0, 3]))
@settings(max_examples=20, deadline=None)
def test_neither_the_scale_nor_a_rotation_of_all_embeddings_changes_a_score(seed, scale, levels):
    embeddings, *known = files(seed, levels=levels)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(embeddings.shape[1],) * 2))[0]
    before, after = retrieved(embeddings, *known), retrieved(scale * embeddings @ turn, *known)
    assert np.array(after) == pytest.approx(np.array(before))


@given(st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_further_files_of_the_subject_that_asks_change_nothing_for_it(seed):
    embeddings, labels, groups, subjects = files(seed)
    mine = np.flatnonzero(subjects == subjects[0])
    again = np.concatenate([np.arange(40), mine, mine])
    before = retrieved(embeddings, labels, groups, subjects)
    after = retrieved(*(of[again] for of in (embeddings, labels, groups, subjects)))
    assert np.array(after)[:, mine] == pytest.approx(np.array(before)[:, mine])


def test_a_label_that_no_other_subject_has_asks_nothing_and_is_counted():
    embeddings = np.random.default_rng(0).normal(size=(8, 4))
    labels, subjects = np.array(list("aaaabbcc")), np.array([0, 1, 2, 3, 4, 4, 5, 6])
    scores = retrieval_scores(embeddings, labels, np.zeros(8), subjects)
    assert (scores["queries"], scores["queries_left_out"]) == (6, 2)
    scores = retrieval_scores(embeddings, labels, np.zeros(8), np.zeros(8))
    assert scores == {"queries": 0, "queries_left_out": 8}


def test_the_interval_holds_the_true_mean_as_often_as_it_says_though_queries_of_a_subject_are_alike():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(100):
        subjects = np.repeat(np.arange(40), rng.integers(1, 8, 40))
        values = rng.normal(0.5, 0.1, 40)[subjects] + rng.normal(0, 0.01, len(subjects))
        low, high = subject_interval(values, subjects)
        inside += low <= 0.5 <= high
    assert 86 <= inside <= 99
    assert subject_interval(np.ones(3), np.zeros(3)) == (0, 1)
