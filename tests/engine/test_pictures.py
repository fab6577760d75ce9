import numpy as np
import pytest
from PIL import Image

from engine.pictures import PREDICTION, TRUTH, _borders, fullest_slice, outlines, reliability_diagrams


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


def test_outlines_of_truth_and_prediction_are_on_the_picture(tmp_path):
    image, truth, predicted = volume()
    nothing = np.zeros_like(truth)
    outlines(tmp_path / "new" / "a.png", {"both": (image, truth, predicted), "missed": (image, truth, nothing)}, "cases")
    outlines(tmp_path / "b.png", {"both": (image, nothing, nothing), "missed": (image, nothing, nothing)}, "cases")
    with_lines, without = (np.asarray(Image.open(tmp_path / name).convert("RGB"), int) for name in ("new/a.png", "b.png"))
    counts = [
        [(np.abs(picture - np.array(style)).max(-1) < 30).sum() for style in colours()] for picture in (with_lines, without)
    ]
    assert counts[0][0] > 3 * counts[1][0] > 0 and counts[0][1] > 3 * counts[1][1] > 0  # without: those of the legend


def colours():
    return [tuple(int(style["color"][i : i + 2], 16) for i in (1, 3, 5)) for style in (TRUTH, PREDICTION)]


def test_a_border_that_two_classes_share_is_drawn_once():
    labels = np.zeros((9, 12), int)
    labels[2:7, 0:6], labels[2:7, 6:12] = 1, 2  # from one side of the picture to the other
    lines = _borders(labels)
    shared = [(line[:, 0] == 5.5) & (line[:, 1] > 2) & (line[:, 1] < 6) for line in lines]
    assert [many.sum() for many in shared] == [3, 0]
    assert [np.nanmin(line[:, 0]) for line in lines] == [-0.5, 5.5] and np.nanmax(lines[1][:, 0]) == 11.5


def test_the_lines_differ_without_their_colours():
    luminance = [np.dot(colour, (0.2126, 0.7152, 0.0722)) for colour in colours()]
    assert abs(luminance[0] - luminance[1]) > 80 and TRUTH["linestyle"] != PREDICTION["linestyle"]


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
