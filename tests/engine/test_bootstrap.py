"""Against scipy's bootstrap, a loop that draws subjects one by one, and the law that 95 % of the intervals hold the mean."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.bootstrap import estimate, mean_of_cases, mean_over_seeds, paired_difference, resamples


def patients(frames=(2, 2, 1, 3, 2, 2, 1, 2), seed=0):
    """Values of frames that are alike within a patient; and whose they are."""
    generator = np.random.default_rng(seed)
    whose = np.repeat([f"patient {i}" for i in range(len(frames))], frames)
    of_patient = np.repeat(generator.normal(size=len(frames)), frames)
    return of_patient + 0.1 * generator.normal(size=len(whose)), whose


def test_with_one_case_a_subject_the_interval_is_scipys():
    values = np.random.default_rng(1).gamma(2.0, size=60)
    ours = mean_of_cases(values, np.arange(60))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)
    assert (ours.value, ours.cases, ours.subjects) == (pytest.approx(values.mean()), 60, 60)


def test_frames_of_a_patient_are_drawn_together():
    values, whose = patients()
    names = np.unique(whose)
    generator, means = np.random.default_rng(3), []
    for _ in range(8000):
        drawn = np.concatenate([values[whose == name] for name in generator.choice(names, len(names))])
        means.append(drawn.mean())
    low, high = np.percentile(means, [2.5, 97.5])
    ours = mean_of_cases(values, whose)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.08 * (high - low))
    alone = mean_of_cases(values, np.arange(len(values)))
    assert ours.high - ours.low > 1.2 * (alone.high - alone.low) and (ours.cases, ours.subjects) == (15, 8)


def test_about_95_of_100_intervals_hold_the_mean_of_the_law():
    generator = np.random.default_rng(4)
    held = 0
    for trial in range(200):
        of_patient = np.repeat(generator.exponential(size=50), 2)
        found = mean_of_cases(of_patient + generator.normal(size=100), np.repeat(np.arange(50), 2), seed=trial)
        held += found.low <= 1.0 <= found.high
    assert 178 <= held <= 198  # 190 expected, a little less for 50 patients of a skewed law


@given(st.floats(-5, 5), st.integers(3, 9), st.integers(0, 3))
def test_an_interval_of_equal_values_has_no_width(value, count, seed):
    found = mean_of_cases(np.full(count, value), np.arange(count) // 2 * 2, seed)
    assert (found.low, found.high) == pytest.approx((value, value), abs=1e-12) and found.value == pytest.approx(value)


def test_the_seed_alone_decides_the_interval_and_the_order_of_cases_does_not():
    values, whose = patients()
    order = np.random.default_rng(5).permutation(len(values))
    first, again = mean_of_cases(values, whose, seed=7), mean_of_cases(values[order], whose[order], seed=7)
    assert (first.low, first.high) == pytest.approx((again.low, again.high), rel=1e-12)
    assert first.low != mean_of_cases(values, whose, seed=8).low


def test_blocks_are_one_row_of_draws(monkeypatch):
    _, whose = patients()
    whole = np.concatenate(list(resamples(whose, seed=1, draws=50)))
    monkeypatch.setattr("engine.bootstrap.BLOCK", 7 * len(whose))
    blocks = list(resamples(whose, seed=1, draws=50))
    assert [len(block) for block in blocks] == [7] * 7 + [1]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    _, first = np.unique(whose, return_index=True)
    assert (whole[:, first].sum(1) == 8).all()  # as many subjects as there are


def test_a_method_differs_from_itself_by_nothing():
    values, whose = patients()
    found = paired_difference(values, values, whose)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_constant_gain_is_found_whatever_the_cases_are_like():
    values, whose = patients()
    found = paired_difference(values + 0.02, values, whose)
    assert (found.value, found.low, found.high) == pytest.approx((0.02, 0.02, 0.02))
    assert paired_difference(values, values + 0.02, whose).value == pytest.approx(-0.02)


def test_cases_without_a_value_are_left_out_and_counted_so():
    values = np.array([1.0, math.nan, 3.0, 5.0])
    found = mean_of_cases(values, np.array(["a", "b", "c", "c"]))
    assert (found.value, found.cases, found.subjects) == (3.0, 3, 2)
    found = paired_difference(values, np.array([0.0, 1.0, math.nan, 4.0]), np.arange(4))
    assert (found.value, found.cases) == (1.0, 2)


def test_one_subject_has_a_mean_and_no_interval():
    found = mean_of_cases(np.array([1.0, 2.0]), np.array(["a", "a"]))
    assert found.value == 1.5 and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(mean_of_cases(np.array([math.nan]), np.array(["a"])).value)


def test_draws_in_which_a_score_does_not_exist_are_left_out_unless_they_are_most():
    def share_of_the_first_given_it_is_drawn(weights):
        return np.where(weights[:, 0] > 0, weights[:, 0] / weights.sum(1), np.nan)

    found = estimate(share_of_the_first_given_it_is_drawn, np.arange(10))
    assert found.value == 0.1 and found.low == 0.1 and found.high >= 0.3  # the first is in 65 % of the draws

    def exists_with_the_first_three(weights):
        return np.where((weights[:, :3] > 0).all(1), 1.0, np.nan)  # in 25 % of the draws

    rare = estimate(exists_with_the_first_three, np.arange(10))
    assert rare.value == 1 and math.isnan(rare.low)


def test_seeds_are_averaged_case_by_case_and_their_means_deviate():
    values = np.array([[0.5, math.nan, 1.0], [0.7, math.nan, math.nan]])
    figures = mean_over_seeds(values, np.array(["a", "b", "c"]), [3, 5])
    assert figures["value"] == pytest.approx((0.6 + 1.0) / 2) and (figures["cases"], figures["subjects"]) == (2, 2)
    assert figures["seeds"] == pytest.approx({"3": 0.75, "5": 0.7})
    assert figures["deviation"] == pytest.approx(0.05 / math.sqrt(2))


def test_what_does_not_exist_is_none_in_a_file():
    figures = mean_over_seeds(np.array([[math.nan], [math.nan]]), np.array(["a"]), [3, 5])
    assert [figures[name] for name in ("value", "interval", "deviation")] == [None] * 3
    assert figures["seeds"] == {"3": None, "5": None}
    assert mean_over_seeds(np.array([[1.0]]), np.array(["a"]), [3])["deviation"] is None
