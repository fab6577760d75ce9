import numpy as np
import pytest
from PIL import Image

from engine.pictures import BACK, COLOURS, _borders, fullest_slice, outlines, reliability_diagrams


def volume(sides=(24, 20, 5)):
    image = np.random.default_rng(0).normal(size=sides)
    truth, predicted = np.zeros((2, *sides), np.uint8)
    truth[4:12, 0:9, 3], predicted[5:12, 2:9, 3] = 1, 2
    truth[20, 10, 3] = 2  # of one pixel
    return image, truth, predicted


def test_the_slice_with_the_most_of_truth_or_prediction_is_shown():
    _, truth, predicted = volume()
    assert fullest_slice(truth, predicted) == 3
    predicted[:, :, 1] = 1  # invented
    assert fullest_slice(truth, predicted) == 1
    assert fullest_slice(np.zeros((2, 2, 5), int), np.zeros((2, 2, 5), int)) == 2


def pixels_of(path, colour, within=30):
    """How many pixels of a picture have about this colour."""
    picture = np.asarray(Image.open(path).convert("RGB"), int)
    return int((np.abs(picture - np.array(rgb(colour))).max(-1) < within).sum())


def rgb(colour):
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_truth_is_filled_and_prediction_a_line_in_the_colour_of_its_class(tmp_path):
    truth = np.zeros((24, 20, 1), np.uint8)
    truth[4:12, 2:9], truth[14:20, 4:15] = 1, 2
    black, nothing = np.zeros(truth.shape), np.zeros_like(truth)
    for name, panel in {
        "truth": (black, truth, nothing),
        "line": (black, nothing, truth),
        "none": (black, nothing, nothing),
    }.items():
        outlines(tmp_path / "new" / f"{name}.png", {name: panel}, "cases")
    for colour in COLOURS[:2]:
        dimmed = "#" + "".join(f"{round(0.4 * part):02x}" for part in rgb(colour))  # on black
        counts = {name: pixels_of(tmp_path / f"new/{name}.png", dimmed, 3) for name in ("truth", "line", "none")}
        assert counts["truth"] > 1000 and counts["line"] < counts["truth"] / 10 and counts["none"] == 0
        counts = {name: pixels_of(tmp_path / f"new/{name}.png", colour) for name in ("truth", "line", "none")}
        assert counts["line"] > 100 and counts["truth"] == counts["none"] == 0


def test_classes_are_named_in_the_legend_and_the_frame_is_dark(tmp_path):
    panels = {"a": volume()}
    outlines(tmp_path / "unnamed.png", panels, "cases")
    outlines(tmp_path / "named.png", panels, "cases", ("left_ventricle", "lung"))
    assert pixels_of(tmp_path / "named.png", COLOURS[0]) > pixels_of(tmp_path / "unnamed.png", COLOURS[0]) + 50
    picture = np.asarray(Image.open(tmp_path / "named.png").convert("RGB"))
    assert picture[0, 0].tolist() == rgb(BACK)


def test_the_outline_of_a_class_is_closed_at_the_border_of_the_picture():
    labels = np.zeros((9, 12), int)
    labels[2:7, 0:6], labels[2:7, 6:12] = 1, 2  # from one side of the picture to the other
    (first, left), (second, right) = _borders(labels)
    assert (first, second) == (1, 2)
    assert left[:, 0].min() == -0.5 and left[:, 0].max() == right[:, 0].min() == 5.5 and right[:, 0].max() == 11.5
    assert (left[0] == left[-1]).all()


def test_colours_of_neighbouring_classes_differ_also_in_lightness():
    luminance = [np.dot(rgb(colour), (0.2126, 0.7152, 0.0722)) for colour in COLOURS]
    assert len(set(COLOURS)) == 6 and min(luminance) > 2 * np.dot(rgb(BACK), (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("sides", [(8, 8, 1), (1, 8, 2)])
def test_flat_images_and_single_slices_can_be_drawn(tmp_path, sides):
    labels = np.ones(sides, np.uint8)
    outlines(tmp_path / "flat.png", {"flat": (np.zeros(sides, np.int16), labels, labels)}, "cases")
    assert Image.open(tmp_path / "flat.png").size[0] > 100


def test_reliability_is_drawn_also_where_bins_are_empty(tmp_path):
    confidence = np.array([np.nan, 0.5, 0.9])
    panels = {"seed 1": (confidence, np.array([np.nan, 0.4, 0.95]), np.array([0, 10, 20]))}
    reliability_diagrams(tmp_path / "one.png", panels, "test")
    reliability_diagrams(tmp_path / "two.png", {**panels, "seed 2": panels["seed 1"]}, "test")
    one, two = (Image.open(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert two.size[0] > 1.8 * one.size[0] and two.size[1] == one.size[1]
    assert pixels_of(tmp_path / "one.png", BACK) > 0.5 * one.size[0] * one.size[1]  # as the other pictures of results
