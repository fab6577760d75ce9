import h5py
import numpy as np
import pytest
import torch

from datasets.cases import Case, find_cases
from datasets.label_map import LabelMap
from datasets.segmentation import Greys, ScatteredSlices, WholeCases, collate_scattered, collate_whole
from datasets.segmentation_views import labelled_view, whole_view

SIZE = (32, 32)


@pytest.fixture
def cases(tmp_path) -> list[Case]:
    """Three volumes of 20 x 26 pixels whose value is their number and slice; foreground, value 7, in slices 2 and 3 alone."""
    for number, depth in enumerate([9, 5, 6]):
        image = np.broadcast_to(np.arange(depth) + 100 * number, (20, 26, depth)).astype(np.int16).copy()
        image[0, 0] = -1000  # no slice is constant
        label = np.zeros(image.shape, np.uint8)
        label[5:9, 6:10, 2:4] = 7
        np.savez(tmp_path / f"p{number}.npz", image=image, label=label)
    return find_cases(tmp_path)


def scattered(cases, count=1, filled_share=0.67, seed=0):
    return ScatteredSlices(cases, LabelMap.from_words(["7"]), SIZE, count, filled_share, seed)


def numbers(item) -> list[int]:
    """The slice numbers of an item, from its middle pixel."""
    return (item["slices"][:, 16, 16] % 100).tolist()


def test_slices_come_from_all_over_a_volume_in_order_with_their_own_labels(cases):
    data = scattered(cases, count=4)
    seen = set()
    for turn in range(40):
        item = data[0, turn]
        found = numbers(item)
        assert found == sorted(set(found)) and len(found) == 4
        assert [bool(labels.any()) for labels in item["labels"]] == [number in (2, 3) for number in found]
        seen |= set(found)
    assert seen == set(range(9))
    assert len(data[1, 0]["slices"]) == 4 and len(scattered(cases, count=8)[1, 0]["slices"]) == 5


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1.0, 1.0), (0.67, 0.67, 0.84), (0.0, 0.1, 0.35)])
def test_the_share_of_filled_slices_is_that_of_the_flag(cases, share, low, high):
    data = scattered(cases, filled_share=share)
    filled = np.mean([data[0, turn]["labels"].any().item() for turn in range(300)])
    assert low <= filled <= high


def test_an_item_is_a_function_of_seed_and_turn(cases):
    draws = [[numbers(scattered(cases, seed=seed)[0, turn])[0] for turn in range(12)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2] and len(set(draws[0])) > 2


@pytest.mark.parametrize("ending", [".h5", ".hdf5"])
def test_volumes_of_any_archive_are_held(tmp_path, ending):
    draws = np.random.default_rng(0)
    with h5py.File(tmp_path / f"p{ending}", "w") as file:
        file["image"], file["label"] = draws.normal(size=(20, 26, 4)), np.ones((20, 26, 4), np.uint8)
    held = ScatteredSlices(find_cases(tmp_path), LabelMap.from_words(["1"]), SIZE, 1, 0.67, 0)
    held.hold(quiet=True)
    assert len(held.held[0].slices) == 4


@pytest.mark.parametrize("ending", [".npz", ".npy"])
def test_volumes_that_the_memory_does_not_hold_are_read_each_time(tmp_path, monkeypatch, ending):
    image = np.random.default_rng(0).normal(size=(20, 26, 4))
    if ending == ".npz":
        np.savez(tmp_path / "p.npz", image=image, label=np.ones((20, 26, 4), np.uint8))
    else:
        np.save(tmp_path / "p.npy", image)
        np.save(tmp_path / "p_seg.npy", np.ones((20, 26, 4), np.uint8))
    held = ScatteredSlices(find_cases(tmp_path), LabelMap.from_words(["1"]), SIZE, 1, 0.67, 0)
    monkeypatch.setattr("datasets.segmentation.half_of_memory", lambda: 4 * 32 * 32)
    held.hold(quiet=True)
    assert not held.held


@pytest.mark.parametrize(("processes", "held"), [(1, 3), (8, 0)])
def test_each_process_holds_volumes_for_itself(cases, monkeypatch, processes, held):
    monkeypatch.setattr("datasets.segmentation.half_of_memory", lambda: 2 * 5 * 20 * 32 * 32)
    data = scattered(cases)
    data.hold(True, processes)
    assert len(data.held) == held


def test_other_classes_are_other_files_for_a_run_that_goes_on(cases):
    maps = [LabelMap.from_words(words) for words in (["7"], ["7"], ["7", "8"])]
    names = [ScatteredSlices(cases, of, SIZE, 1, 0.67, 0).summary()["names"] for of in maps]
    assert names[0] == names[1] != names[2]


def test_held_volumes_give_the_items_of_the_files(cases):
    held, read = scattered(cases), scattered(cases)
    held.hold(quiet=True)
    for turn in range(5):
        assert torch.equal(held[2, turn]["slices"], read[2, turn]["slices"]) and len(held.held) == 3


def test_views_move_pixels_and_labels_together_and_depend_on_their_keys_alone(cases):
    rows, columns = np.mgrid[:32, :32]
    disc = torch.from_numpy((np.hypot(rows - 12, columns - 19) < 6).astype(np.uint8))[None]
    item = {"index": 0, "slices": disc.to(torch.int16) * 100, "labels": disc}
    item |= Greys(0.0, 100.0, 0.0, 1.0)._asdict()
    batch = collate_scattered([item | {"turn": turn} for turn in range(16)])
    pixels, labels, real = labelled_view(batch, 3, "robust", torch.float32)
    assert real.all() and labels.dtype == torch.uint8
    for picture, truth in zip(pixels[:, 0], labels[:, 0]):
        bright = picture > (picture.max() + picture.min()) / 2
        assert 2 * (bright & truth.bool()).sum() / (bright.sum() + truth.sum()) > 0.9
    assert len({truth.sum().item() for truth in labels}) > 8
    again = labelled_view({k: v for k, v in batch.items()}, 3, "robust", torch.float32)[0]
    assert torch.equal(pixels, again)


def ramp(turns: int) -> dict:
    """A batch of planes of 64 x 96 whose value is the column, and whose label the row."""
    rows, columns = np.mgrid[:64, :96]
    item = {"index": 0, **Greys(0.0, 1.0, 0.0, 1.0)._asdict(), "slices": torch.from_numpy(columns.astype(np.int16))[None]}
    item["labels"] = torch.from_numpy(rows.astype(np.uint8))[None]
    return collate_scattered([item | {"turn": turn} for turn in range(turns)])


def test_a_crop_shows_pixels_of_the_plane_in_their_own_size_from_anywhere_in_it(monkeypatch):
    for name, value in {"TURN": 0.0, "SCALES": (1.0, 1.0), "SHIFT": 0.0}.items():
        monkeypatch.setattr(f"datasets.segmentation_views.{name}", value)
    pixels, labels, _ = labelled_view(ramp(400), 0, "none", torch.float32, (32, 64))
    assert pixels.shape == labels.shape == (400, 1, 32, 64)
    assert torch.allclose(pixels.diff(dim=3), torch.ones(()), atol=1e-4)
    assert (labels.int().diff(dim=2) == 1).all()
    first, top = pixels[:, 0, 0, 0], labels[:, 0, 0, 0].float()
    assert 0 <= first.min() < 1 and 31 < first.max() <= 32 and 0 <= top.min() < 2 and 30 < top.max() <= 32
    assert abs(np.corrcoef(first, top)[0, 1]) < 0.2


def test_a_turned_crop_is_the_part_of_the_turned_plane_that_it_shows(monkeypatch):
    monkeypatch.setattr("datasets.segmentation_views.SCALES", (1.0, 1.0))
    pixels, labels, _ = labelled_view(ramp(60), 0, "none", torch.float32, (32, 32))
    inside = (pixels[:, 0] > 1).flatten(1).all(1) & (labels[:, 0] > 1).flatten(1).all(1)
    assert 10 < inside.sum() < 60
    along = pixels[inside, 0].diff(dim=2).mean((1, 2))  # of a turn by a: cos a along rows, - sin a along columns
    across = pixels[inside, 0].diff(dim=1).mean((1, 2))
    assert torch.allclose(along**2 + across**2, torch.ones(()), atol=1e-3) and across.abs().max() > 0.2
    rows = labels[inside, 0].float()
    assert torch.allclose((rows[:, :, -1] - rows[:, :, 0]).mean(1) / 31, -across, atol=0.02)


def test_a_crop_of_the_whole_plane_is_the_plane():
    whole, cropped = (labelled_view(ramp(4), 5, "none", torch.float32, crop) for crop in (None, (64, 96)))
    assert torch.equal(whole[0], cropped[0]) and torch.equal(whole[1], cropped[1])


def test_a_batch_is_padded_and_says_what_is_real(cases):
    data = scattered(cases, count=6)
    batch = collate_scattered([data[0, 0], data[1, 0]])
    _, _, real = labelled_view(batch, 0, "none", torch.float32)
    assert batch["slices"].shape == (2, 6, 32, 32) and real.sum(1).tolist() == [6, 5]


def test_a_whole_case_has_all_slices_in_their_place(cases):
    item = WholeCases(cases, SIZE)[0, -1]
    batch = collate_whole([item])
    assert batch["slices"].shape == (1, 9, 32, 32) and item["placement"].inner == (20, 26)
    assert whole_view(batch, "robust", torch.float32).shape == (9, 32, 32)
    assert whole_view(batch, "imagenet", torch.float32).shape == (9, 3, 32, 32)


def test_volumes_of_any_contrast_have_zero_mean_and_unit_deviation_by_their_own(cases):
    for index in range(len(cases)):
        batch = collate_whole([WholeCases(cases, SIZE)[index, -1]])
        place, shown = batch["placement"], whole_view(batch, "volume", torch.float32)
        (top, left), (height, width) = place.corner, place.inner
        own = shown[:, top : top + height, left : left + width]
        assert abs(own.mean()) < 1e-5 and abs(own.std(correction=0) - 1) < 1e-5


def test_what_is_learned_from_is_brought_to_what_the_whole_volume_is_brought_to(cases, monkeypatch):
    for name, value in {"TURN": 0.0, "SCALES": (1.0, 1.0), "SHIFT": 0.0, "CHANCE": 0.0}.items():
        monkeypatch.setattr(f"datasets.segmentation_views.{name}", value)
    item = scattered(cases)[0, 3]
    learned, _, _ = labelled_view(collate_scattered([item]), 0, "volume", torch.float32)
    whole = whole_view(collate_whole([WholeCases(cases, SIZE)[0, -1]]), "volume", torch.float32)
    (number,) = numbers(item)
    assert torch.allclose(learned[0, 0], whole[number], atol=1e-3)
