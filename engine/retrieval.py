"""Retrieval by embeddings: asked with a file, those of other subjects that have its label should be found first.

Every labelled file asks the other labelled files of its collection that are of other subjects, ranked by cosine. Where files
are equally near, no order of theirs counts: average precision and precision at k are the expected ones of a random order among
equals (McSherry and Najork, ECIR 2008). So an encoder that makes all files alike scores as chance does, however the files are
sorted; scikit-learn's average precision, which takes equals for one place, would give it less.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap

from .neighbours import similarities

RESAMPLES = 1000


class Retrieved(NamedTuple):
    """Of each row (n,): was it asked, average precision, precision at 1 and at 5, average precision of a random order."""

    asked: np.ndarray
    precision: np.ndarray
    at_1: np.ndarray
    at_5: np.ndarray
    chance: np.ndarray


def retrieval_scores(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, subjects: np.ndarray) -> dict:
    """Means over all queries: `map` with its 95 % interval and what a random order would give, precision at 1 and at 5.

    Rows whose label no other subject of their group has ask nothing and are counted as `queries_left_out`; the others find
    them. Nothing but that count where no row asks. embeddings (n, D), labels, groups (collections) and subjects (n,).
    """
    found = retrieved(embeddings, labels, groups, subjects)
    asked = found.asked
    scores = {"queries": int(asked.sum()), "queries_left_out": int((~asked).sum())}
    if not asked.any():
        return scores
    return scores | {
        "map": float(found.precision[asked].mean()),
        "map_interval": subject_interval(found.precision[asked], subjects[asked]),
        "map_chance": float(found.chance[asked].mean()),
        "precision_at_1": float(found.at_1[asked].mean()),
        "precision_at_5": float(found.at_5[asked].mean()),
    }


def retrieved(embeddings: np.ndarray, labels: np.ndarray, groups: np.ndarray, subjects: np.ndarray) -> Retrieved:
    """The scores of each row; zeros for one that does not ask."""
    scores = np.zeros((5, len(labels)))
    codes = np.unique(labels, return_inverse=True)[1]
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        for rows, similar in similarities(embeddings[members], subjects[members]):
            others = np.isfinite(similar)
            relevant = others & (codes[members[rows], None] == codes[members])
            precision, at_1, at_5 = ranking_scores(similar, relevant, others.sum(1))
            chance = expected_precision(relevant.sum(1), others.sum(1))
            scores[:, members[rows]] = relevant.any(1), precision, at_1, at_5, chance
    return Retrieved(scores[0] > 0, *scores[1:])


def ranking_scores(similar: np.ndarray, relevant: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, ...]:
    """similar (b, n), −∞ for what is not ranked; relevant (b, n) bool; others (b,): how many are ranked.

    → average precision, precision at 1 and at 5 (of as many as are ranked, where these are fewer), each (b,).
    """
    order = np.argsort(-similar, axis=1)  # which of equals comes first changes nothing
    ranked = np.take_along_axis(similar, order, 1)
    hits = np.take_along_axis(relevant, order, 1)
    first, last = _runs_of_equals(ranked)
    found = hits.cumsum(1)
    before = np.take_along_axis(found - hits, first, 1)  # hits down to the run of equals that a place lies in
    of_run, length = np.take_along_axis(found, last, 1) - before, last - first + 1
    expected = of_run / length
    ahead = (np.arange(ranked.shape[1]) - first) * (of_run - 1) / np.maximum(length - 1, 1)  # hits of the run, given one here
    precision = (expected * (before + 1 + ahead) / np.arange(1, ranked.shape[1] + 1)).sum(1) / np.maximum(found[:, -1], 1)
    at = [expected[:, :k].sum(1) / np.clip(others, 1, k) for k in (1, 5)]
    return precision, *at


def _runs_of_equals(ranked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(b, n) sorted values → (b, n) the first and the last place of the run of equal values that each place lies in."""
    places = np.arange(ranked.shape[1])
    new = np.ones(ranked.shape, bool)
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = np.maximum.accumulate(np.where(new, places, 0), axis=1)
    ends = np.ones(ranked.shape, bool)
    ends[:, :-1] = new[:, 1:]
    last = np.minimum.accumulate(np.where(ends, places, len(places) - 1)[:, ::-1], axis=1)[:, ::-1]
    return first, last


def expected_precision(relevant: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """(b,): the mean average precision over all orders of `ranked` files, of which `relevant` have the label; 0 where none has.

    Of two places i > j both are hits with the probability R (R - 1) / (N (N - 1)); summed over the places that is
    H / N + (R - 1) (N - H) / (N (N - 1)), H being the N-th harmonic number.
    """
    harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, ranked.max(initial=0) + 1))])[ranked]
    many = np.maximum(ranked, 1)
    share = np.maximum(relevant - 1, 0) / np.maximum(ranked - 1, 1)
    return np.where(relevant > 0, (harmonic + share * (ranked - harmonic)) / many, 0.0)


def subject_interval(values: np.ndarray, subjects: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean over queries (n,), by a bootstrap of subjects: queries of one subject are no repetitions.

    What is searched stays the same: the interval says nothing of another collection of files to be found.
    """
    codes = np.unique(subjects, return_inverse=True)[1]
    sums, counts = np.bincount(codes, values), np.bincount(codes)
    if len(counts) < 2:
        return 0.0, 1.0
    mean = lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis)  # noqa: E731
    batch = max(1, 2**22 // len(counts))
    how = {"paired": True, "vectorized": True, "method": "percentile", "n_resamples": RESAMPLES, "batch": batch}
    told = bootstrap((sums, counts), mean, **how, rng=np.random.default_rng(seed)).confidence_interval
    return float(told.low), float(told.high)
