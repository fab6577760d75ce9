import math
import re
from itertools import pairwise
from pathlib import Path

import pytest

from engine.report_curves import Curve, Series, card, in_a_line, is_drawn, line_chart, series_of
from engine.report_words import number
from engine.run_record import StageRecord


def record(**figures):
    """A stage of three epochs of two steps, with so many seconds, 8 pictures a step."""
    lines = [{"kind": "epoch", "step": 2 * (n + 1), "epoch": n, "seconds": 4.0, "data_wait_seconds": 1.0} for n in range(3)]
    for name, values in figures.items():
        for line, value in zip(lines, values):
            line[name] = value
    steps = [{"kind": "step", "step": n, "lr": 0.1 * n} for n in (1, 2, 3)]
    return StageRecord(Path("runs/r/ssl_swav_2D"), "ssl_swav_2D", {"batch_size": 8}, {}, lines, steps)


def test_figures_of_families_are_drawn_beside_what_they_are_measured_by():
    ln_k = [math.log(30)] * 3
    found = series_of(record(loss=[3, 2, 1], images_loss=[3, 2, 1], images_ln_k=ln_k, images_clusters_used=[30, 20, 10]))
    assert "loss" not in found  # it is that of the family
    assert found["images_loss"].reference == ("ln K", ln_k[0])
    assert found["images_clusters_used"].reference == ("K", 30)
    assert found["images_loss"].x == [1, 2, 3] and found["images_loss"].y == [3, 2, 1]


def test_speed_is_items_over_seconds_and_waiting_a_share():
    found = series_of(record(loss=[3, 2, 1]))
    assert found["throughput"].y == [2 * 8 / 4.0] * 3
    assert found["data_wait"].y == [0.25] * 3
    assert found["lr"].x == [1, 2, 3]


def test_a_figure_that_an_epoch_lacks_leaves_a_gap():
    assert series_of(record(loss=[3, None, 1]))["loss"].x == [1, 3]


def test_first_and_last_values_stand_below_the_curve_in_full():
    text = card("loss", [Curve("run", 0, "ssl_swav_2D", Series([1, 2], [3.6978311538, 1.25]))])
    found = re.findall(r'<data value="([^"]+)" data-figure="([^"]+)">([^<]+)</data>', text)
    assert found == [("3.6978311538", "ssl_swav_2D/loss/first", "3.7"), ("1.25", "ssl_swav_2D/loss/last", "1.25")]


def test_every_point_of_a_curve_lies_in_its_chart():
    series = Series(list(range(1000)), [math.sin(n) * 10 ** (n % 7) for n in range(1000)], ("ln K", 5.0))
    text = line_chart("a & b", [series], "epoch")
    points = re.search(r'points="([^"]+)"', text)[1].split()
    assert len(points) <= 302 and "a &amp; b" in text
    for x, y in (map(float, point.split(",")) for point in points):
        assert 46 <= x <= 330 and 12 <= y <= 150


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0], [0.0, 0.0], [-1.0, -1.0], [1e-9, 2e-9], [1.0, 1e9]])
def test_any_values_have_a_chart(values):
    assert "nan" not in line_chart("a", [Series(list(range(len(values))), values)], "epoch")


@pytest.mark.parametrize(
    "value, text", [(3.6978, "3.7"), (30, "30"), (12345.6, "12\u202f346"), (6.1e-8, "6.1e-08"), (None, "–")]
)
def test_numbers_as_people_read_them(value, text):
    assert number(value) == text


def test_a_run_keeps_its_colour_where_others_lack_a_figure():
    text = card("changed", [Curve("second", 1, "b", Series([2], [0.5]))], several=True)
    assert 'class="line c1"' in text and 'class="swatch c1"' in text and "second: " in text and "c0" not in text


def test_a_run_too_short_to_log_rates_shows_those_that_were_scheduled():
    short, rates = (
        record(loss=[3, 2, 1]),
        {"epochs": 3, "warmup_epochs": 1, "base_lr": 1.0, "final_lr": 0.0, "start_warmup": 0.0},
    )
    short = StageRecord(**{**vars(short), "steps": [], "config": rates})
    assert series_of(short)["lr"].y == pytest.approx([0, 1, *(0.5 + 0.5 * math.cos(math.pi * n / 4) for n in range(4))])


def ticks_of(values):
    """The labels of the vertical axis."""
    text = line_chart("a", [Series(list(range(len(values))), values)], "epoch")
    return [float(tick) for tick in re.findall(r'<text class="end" x="41"[^>]*>([^<]+)</text>', text)]


@pytest.mark.parametrize("values", [[0.898, 0.906, 0.9], [0.0912, 0.0951, 0.1], [1.0001, 1.0009, 1.0], [3.7, 1.99, 2.5]])
def test_ticks_are_evenly_spaced_as_they_are_written(values):
    ticks = ticks_of(values)
    steps = [b - a for a, b in pairwise(ticks)]
    assert len(ticks) >= 3 and max(steps) - min(steps) < 1e-9


def test_counts_have_no_ticks_between_whole_numbers():
    assert ticks_of([3, 4, 3]) == [3, 4]
    assert ticks_of([7, 0, 7]) == [0, 5, 10]


@pytest.mark.parametrize("values, drawn", [([1.0], False), ([1.0, 2.0], False), ([3, 3, 3, 3], False), ([1, 2, 3], True)])
def test_what_has_no_shape_is_no_chart(values, drawn):
    assert is_drawn([Curve("run", 0, "a", Series(list(range(len(values))), values))]) == drawn


def test_a_constant_is_a_line_with_its_figures():
    text = in_a_line("images_clusters_used", [Curve("run", 0, "a", Series([1, 2, 3], [30, 30, 30], ("K", 30)))])
    assert "<svg" not in text and "unchanged in 3 epochs" in text and 'data-figure="a/images_clusters_used/last"' in text


def test_a_rank_says_of_which_layer_it_is():
    series = Series([1, 2], [3.0, 4.0])
    assert "their projections differ" in card("slices_rank", [Curve("run", 0, "a", series)])
    assert "their embeddings differ" in card("volumes_rank", [Curve("run", 0, "a", series)])
