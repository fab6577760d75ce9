"""Against MONAI's own functions, and a restatement in float64 that measures every distance from voxel to voxel."""

import itertools
import math
import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import DiceMetric, HausdorffDistanceMetric, compute_dice, compute_hausdorff_distance, compute_iou
from monai.metrics import compute_surface_dice as monai_surface_dice

from engine.segmentation_scores import (
    ABSENT,
    FOUND,
    INVENTED,
    MEASURES,
    MISSED,
    _surface_distances,
    mean_dice,
    score_volume,
)

# sums of squares of halves are exact, so that float32 and float64 agree about what lies within a tolerance
SPACINGS = st.sampled_from([None, (1.0, 1.0, 1.0), (0.5, 1.5, 3.0), (2.0, 2.0, 0.5)])
TOLERANCES = st.sampled_from([0.0, 1.0, 1.25, 2.5])


@st.composite
def label_maps(draw, classes=2):
    """Two maps of scattered voxels, and in each a box of one class, which has an inside."""
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)))
    maps = [draw(arrays(np.uint8, shape, elements=st.integers(0, classes), fill=st.just(0))) for _ in range(2)]
    for labels in maps:
        begins = [draw(st.integers(0, side)) for side in shape]
        labels[tuple(slice(begin, draw(st.integers(begin, side))) for begin, side in zip(begins, shape))] = 1
    return maps


def surface(mask):
    """The voxels with a face to the outside, which begins at the border of the volume; in a picture, with an edge to it."""
    axes = 2 if mask.shape[2] == 1 else 3
    points = []
    for point in np.argwhere(mask):
        for axis, step in itertools.product(range(axes), (-1, 1)):
            beside = point.copy()
            beside[axis] += step
            if not 0 <= beside[axis] < mask.shape[axis] or not mask[tuple(beside)]:
                points.append(point)
                break
    return np.array(points, np.float64)


def restated(predicted, truth, steps, tolerance):
    a, b = surface(predicted) * steps, surface(truth) * steps
    apart = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    there, back = apart.min(1), apart.min(0)
    both = (predicted & truth).sum()
    return {
        "dice": 2 * both / (predicted.sum() + truth.sum()),
        "iou": both / (predicted | truth).sum(),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "surface_dice": (np.sum(there <= tolerance) + np.sum(back <= tolerance)) / (len(a) + len(b)),
    }


def monais(predicted, truth, steps, tolerance):
    a, b = (torch.from_numpy(mask)[None, None] for mask in (predicted, truth))
    if predicted.shape[2] == 1:
        a, b, steps = a[..., 0], b[..., 0], steps[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = {
            "dice": compute_dice(a.float(), b.float(), include_background=True),
            "iou": compute_iou(a.float(), b.float(), include_background=True),
            "hd95": compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=steps),
            "surface_dice": monai_surface_dice(a, b, [tolerance], include_background=True, spacing=steps),
        }
    return {name: figure.item() for name, figure in figures.items()}


@settings(max_examples=25, deadline=None)
@given(label_maps(), SPACINGS, TOLERANCES)
def test_the_scores_are_those_of_monai_and_of_all_distances_measured(maps, spacing, tolerance):
    """Where a class is in both maps, all three have the same rules, with one exception.

    A volume of one slice: MONAI takes every voxel of it for surface, above and below being outside; here it is a picture, which
    MONAI is shown as such. Elsewhere MONAI goes other ways, which the tests below have: a missed or invented class has a
    distance of NaN or infinity, which its mean leaves out, and one that is in neither has a Dice of NaN or, if asked, 1.
    DeepMind's surface Dice (MONAI's `use_subvoxels`) weighs a surface by its area and has other figures throughout.
    """
    predicted, truth = maps
    steps = np.array(spacing or (1, 1, 1), float)
    for row in score_volume(predicted, truth, 2, spacing, tolerance):
        masks = predicted == row.number, truth == row.number
        if row.status == FOUND:
            for oracle in (restated, monais):
                expected = oracle(*masks, steps, tolerance)
                assert {name: getattr(row, name) for name in MEASURES} == pytest.approx(expected, rel=2e-6, abs=1e-6), oracle
        else:
            assert not (masks[0].any() and masks[1].any())


@settings(max_examples=25, deadline=None)
@given(label_maps(), SPACINGS)
def test_each_class_has_one_status_and_what_it_means(maps, spacing):
    predicted, truth = maps
    diagonal = math.sqrt(sum((side * step) ** 2 for side, step in zip(truth.shape, spacing or (1, 1, 1))))
    rows = score_volume(predicted, truth, 3, spacing, 1.0)
    assert [row.number for row in rows] == [1, 2, 3]
    for row in rows:
        there = bool((predicted == row.number).any()), bool((truth == row.number).any())
        assert row.status == {(1, 1): FOUND, (0, 1): MISSED, (1, 0): INVENTED, (0, 0): ABSENT}[there]
        values = [getattr(row, name) for name in MEASURES]
        if row.status in (MISSED, INVENTED):
            assert values == pytest.approx([0, 0, diagonal, 0])
        elif row.status == ABSENT:
            assert all(math.isnan(value) for value in values)
        else:
            assert 0 <= row.iou <= row.dice <= 1 and 0 <= row.surface_dice <= 1 and row.hd95 < diagonal
        assert row.unit == ("voxel" if spacing is None else "mm")


@settings(max_examples=15, deadline=None)
@given(label_maps(), SPACINGS)
def test_truth_and_prediction_may_change_places(maps, spacing):
    for one, other in zip(score_volume(*maps, 2, spacing, 1.0), score_volume(*maps[::-1], 2, spacing, 1.0)):
        np.testing.assert_array_equal([getattr(one, m) for m in MEASURES], [getattr(other, m) for m in MEASURES])


@settings(max_examples=15, deadline=None)
@given(label_maps(), SPACINGS, st.integers(0, 5))
def test_cutting_to_the_structure_changes_no_bit(maps, spacing, margin):
    wide = [np.pad(labels, [(margin, 2), (0, margin), (1, 1)]) for labels in maps]  # more than one slice, also uncut
    steps = spacing or (1.0, 1.0, 1.0)
    for row in score_volume(*wide, 2, spacing, 1.0):
        if row.status == FOUND:
            there, back = _surface_distances(wide[0] == row.number, wide[1] == row.number, steps, in_plane=False)
            assert row.hd95 == max(np.percentile(there, 95), np.percentile(back, 95))
            assert row.surface_dice == ((there <= 1).sum() + (back <= 1).sum()) / (len(there) + len(back))


def test_a_prediction_of_background_alone_scores_zero_where_monai_leaves_it_out():
    truth = np.zeros((9, 8, 7), np.uint8)
    truth[2:5, 2:5, 2:5], truth[6, 6, 6] = 1, 2
    rows = score_volume(np.zeros_like(truth), truth, 2, (1.0, 1.0, 2.0), 1.0)
    assert [row.status for row in rows] == [MISSED, MISSED]
    assert [(row.dice, row.iou, row.surface_dice) for row in rows] == [(0, 0, 0)] * 2
    assert [row.hd95 for row in rows] == pytest.approx([math.sqrt(81 + 64 + 196)] * 2)
    found, missed = torch.zeros(2, 1, 9, 8, 7)[:1], torch.zeros(2, 1, 9, 8, 7)
    found[0, 0, 2:5, 2:5, 2:5] = 1
    metric = HausdorffDistanceMetric(include_background=True, percentile=95)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric(torch.cat([found, missed[:1]]), torch.cat([found, found]))  # the second case is missed
        assert metric.aggregate().item() == 0  # and the mean is that of a perfect one


def test_what_is_in_neither_is_no_perfect_score():
    empty = torch.zeros(1, 1, 4, 4, 4)
    metric = DiceMetric(include_background=True, ignore_empty=False)
    assert metric(empty, empty).item() == 1  # as MONAI may be asked to
    (row,) = score_volume(np.zeros((4, 4, 4), int), np.zeros((4, 4, 4), int), 1, None, 1.0)
    assert row.status == ABSENT and math.isnan(row.dice)


def test_structures_of_one_voxel_are_as_far_apart_as_their_spacing_says():
    predicted, truth = np.zeros((2, 5, 6, 4), np.uint8)
    predicted[1, 1, 1], truth[4, 1, 3] = 1, 1
    (row,) = score_volume(predicted, truth, 1, (1.0, 9.0, 2.0), 4.9)
    assert (row.status, row.dice, row.surface_dice, row.unit) == (FOUND, 0, 0, "mm") and row.hd95 == pytest.approx(5)
    (row,) = score_volume(predicted, truth, 1, (1.0, 9.0, 2.0), 5.0)
    assert row.surface_dice == 1


def test_a_volume_of_one_slice_is_a_picture():
    predicted, truth = np.zeros((2, 20, 20, 1), np.uint8)
    predicted[5:15, 5:15], truth[4:16, 4:16] = 1, 1
    (row,) = score_volume(predicted, truth, 1, None, 0.5)
    # the outlines are one voxel apart everywhere but at the corners of the larger; taken for a body, most voxels coincide
    assert row.surface_dice == 0 and 1 <= row.hd95 < 1.5


def test_a_distance_equal_to_the_tolerance_is_within_it_also_where_it_is_no_binary_fraction():
    predicted, truth = np.zeros((2, 5, 5, 5), np.uint8)
    predicted[1, 1, 1], truth[2, 1, 1] = 1, 1
    (row,) = score_volume(predicted, truth, 1, (0.3, 1.0, 1.0), 0.3)
    assert row.surface_dice == 1


def test_a_volume_as_large_as_an_atrium_takes_less_than_two_seconds_a_class():
    grid = np.stack(np.meshgrid(*map(np.arange, (150, 150, 60)), indexing="ij"), -1)
    truth, predicted = (
        ((((grid - centre) / (50, 50, 22)) ** 2).sum(-1) < 1).astype(np.uint8) for centre in ((75, 75, 30), (78, 74, 31))
    )
    score_volume(predicted[:5], truth[:5], 1, None, 1.0)  # MONAI's import
    began = time.process_time()
    (row,) = score_volume(predicted, truth, 1, (1.0, 1.0, 2.0), 2.0)
    assert row.status == FOUND and time.process_time() - began < 2


def test_the_quick_mean_is_that_of_the_rows():
    draws = np.random.default_rng(3)
    for classes in (1, 3, 5):
        predicted, truth = draws.integers(0, classes, (2, 6, 5, 4)).astype(np.uint8)
        rows = [row.dice for row in score_volume(predicted, truth, classes, None, 1.0) if row.status != "absent"]
        found = mean_dice(predicted, truth, classes)
        assert found == pytest.approx(np.mean(rows)) if rows else math.isnan(found)
