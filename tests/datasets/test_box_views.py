import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.box_dataset import BoxDataset, collate_boxes, detector_images
from datasets.box_views import change_intensities, placed, show
from datasets.boxes import BoxedPicture

sides = st.integers(8, 90)
draws = st.lists(st.floats(0, 0.999), min_size=4, max_size=4).map(np.array)


@settings(deadline=None)
@given(sides, sides, draws)
def test_boxes_go_into_the_square_and_back(height, width, four):
    boxes = torch.tensor([[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]], dtype=torch.float64)
    place = placed((height, width), 64)
    moved, seen = place.into(boxes)
    assert seen.all() and torch.allclose(place.back(moved), boxes)
    assert max(place.shape) == 64 and moved[0].max() <= 64
    jittered = placed((height, width), 64, four, scale_jitter=0.2)
    assert 0.75 <= max(jittered.shape) / 64 <= 1.25
    moved, seen = jittered.into(boxes)
    assert moved.min() >= 0 and moved.max() <= 64


@settings(deadline=None)
@given(sides, sides, draws, st.booleans())
def test_a_bright_rectangle_is_shown_where_its_box_is(height, width, four, flip):
    top, left = height // 4, width // 4
    pixels = torch.zeros(height, width)
    pixels[top : top + height // 2, left : left + width // 2] = 1
    place = placed((height, width), 128, four, 0.2, flip)
    boxes, seen = place.into(torch.tensor([[left, top, left + width // 2, top + height // 2]], dtype=torch.float64))
    assert seen.all()
    shown = show(pixels, place)
    rows, columns = np.where(shown.numpy() > 0.5)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(found - boxes[0].numpy()).max() <= 1.0  # a pixel is seen from its middle on


def test_a_box_whose_middle_is_cut_off_is_not_learned():
    place = placed((100, 100), 64, np.array([0.999, 0.0, 0.0, 0.9]), scale_jitter=0.5)  # half as large again, upper left corner
    boxes = torch.tensor([[60.0, 60, 100, 100], [0, 0, 100, 100]], dtype=torch.float64)
    moved, seen = place.into(boxes)
    assert seen.tolist() == [False, True] and moved[1].tolist() == [0, 0, 64, 64]


def test_intensities_change_by_their_strength():
    pixels = torch.rand(2, 5, 5, dtype=torch.float64)
    assert torch.allclose(change_intensities(pixels, torch.full((2, 2), 0.5), 0.2), pixels)
    darker = change_intensities(pixels, torch.tensor([[0.0, 0.5], [0.0, 0.5]]), 0.2)
    assert torch.allclose(darker, 0.8 * pixels)


@pytest.fixture
def items(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for number, (bits, size) in enumerate([(np.uint8, (40, 60)), (np.uint16, (50, 30))]):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, np.iinfo(bits).max, size).astype(bits)).save(path)
        made.append(BoxedPicture(path, path.name, "", size=size, boxes=((1, 2, 20, 21),), findings=("mass",)))
    return made


def test_a_view_depends_on_the_pass_and_the_index_alone(items):
    dataset = BoxDataset(items, ["heart", "mass"], 32, seed=1, scale_jitter=0.2, flip=True)
    once, again, later = dataset[0, 3], dataset[0, 3], dataset[0, 4]
    assert torch.equal(once["pixels"], again["pixels"]) and torch.equal(once["boxes"], again["boxes"])
    assert not torch.equal(once["boxes"], later["boxes"])
    whole = BoxDataset(items, ["heart", "mass"], 32)
    assert torch.equal(whole[0, 3]["boxes"], whole[0, 4]["boxes"]) and whole[0, 0]["labels"].tolist() == [2]


def test_a_batch_is_brought_to_what_the_weights_were_trained_on(items):
    dataset = BoxDataset(items, ["mass"], 32)
    batch = collate_boxes([dataset[0, -1], dataset[1, -1]])
    grey = detector_images(batch, "robust", torch.float64)
    assert grey.shape == (2, 1, 32, 32)
    assert grey.min().item() == pytest.approx(-0.449 / 0.226) and grey.max().item() <= (1 - 0.449) / 0.226 + 1e-9
    colour = detector_images(batch, "imagenet", torch.float64)
    assert colour.shape == (2, 3, 32, 32)
    restored = colour * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1) + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    assert torch.allclose(restored, (grey * 0.226 + 0.449).expand(-1, 3, -1, -1), atol=1e-6)


def test_other_boxes_are_another_summary(items):
    moved = [
        items[0],
        BoxedPicture(items[1].path, items[1].name, "", size=(50, 30), boxes=((1, 2, 20, 22),), findings=("mass",)),
    ]
    names = [BoxDataset(of, ["mass"], 32).summary()["names"] for of in (items, list(items), moved)]
    assert names[0] == names[1] != names[2]
