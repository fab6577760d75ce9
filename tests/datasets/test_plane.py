import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets.plane import placed, placed_labels, placement, size_for, taken_back

sides = st.integers(1, 90)


@given(sides, sides, sides, sides)
def test_a_slice_lies_whole_in_the_plane_and_is_never_enlarged(height, width, tall, wide):
    place = placement((height, width), (tall, wide))
    for axis, (of, fits) in enumerate([(height, tall), (width, wide)]):
        assert 1 <= place.inner[axis] <= min(of, fits)
        assert 0 <= place.corner[axis] and place.corner[axis] + place.inner[axis] <= fits
    factor = max(1, height / tall, width / wide)
    assert abs(place.inner[0] - height / factor) <= 1 and abs(place.inner[1] - width / factor) <= 1


@given(sides, sides)
def test_what_fits_comes_back_as_it_was(height, width):
    slices = torch.arange(2 * height * width).view(2, height, width)
    place = placement((height, width), (96, 96))
    assert torch.equal(taken_back(placed(slices, place, fill=-1).float()[:, None], place)[:, 0], slices.float())
    assert torch.equal(taken_back(placed_labels(slices, place)[:, None], place)[:, 0], slices)


def test_labels_stay_with_their_pixels_when_both_are_shrunk():
    rows, columns = np.mgrid[:150, :130]
    disc = torch.from_numpy((np.hypot(rows - 60, columns - 80) < 30).astype(np.uint8))[None]
    place = placement((150, 130), (64, 64))
    pixels, labels = placed(disc * 100, place, fill=0), placed_labels(disc, place)
    assert ((pixels > 50) == labels.bool()).float().mean() > 0.99
    back = taken_back(torch.nn.functional.one_hot(labels.long(), 2).movedim(-1, 1).float(), place).argmax(1)
    assert 2 * (back & disc).sum() / (back.sum() + disc.sum()) > 0.97


def test_padding_is_filled_as_told_and_has_no_label():
    place = placement((3, 5), (8, 8))
    ones = torch.ones(1, 3, 5, dtype=torch.int16)
    assert placed(ones, place, fill=-7).eq(-7).sum() == 64 - 15 and placed_labels(ones, place).sum() == 15


def test_the_size_is_the_least_that_holds_all_up_to_the_most():
    assert size_for([(100, 31), (90, 64)], 32, 256) == (128, 64)
    assert size_for([(512, 40)], 32, 256) == (256, 64)
