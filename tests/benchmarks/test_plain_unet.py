"""The plain loop that downstream figures are compared with."""

import numpy as np
import pytest
import torch
import tyro

from benchmarks.plain_unet import Flags, factor, main, read
from datasets.cases import find_cases
from datasets.errors import DataError
from datasets.segmentation import WholeCases, collate_whole
from datasets.segmentation_views import whole_view
from engine.errors import UserError
from engine.segmented_cases import dice_by_case
from tests.discs import write_discs


def flags_of(folder, **other):
    if not (folder / "data").exists():
        write_discs(folder / "data")
    small = {"image_size": (32, 32), "seeds": (0,), "evaluate": "test", "data_path": str(folder / "data")}
    return Flags(**{**small, "output": str(folder / "out"), **other})


def test_discs_are_learned_and_finished_seeds_are_not_run_again(tmp_path, capsys):
    constants = {"steps": 40, "base_lr": 3e-3}
    main(flags_of(tmp_path, **constants))
    table = tmp_path / "out/seed-0/cases.csv"
    cases = dice_by_case([table], "test")
    assert cases and min(dice for _, (dice,) in cases.values()) > 0.6

    written = table.stat().st_mtime_ns
    main(flags_of(tmp_path, **constants, against=str(tmp_path / "out")))
    assert f"{tmp_path / 'out'} - this: 0.000 (" in capsys.readouterr().out
    for other, message in [
        ({"evaluate": "valid"}, "evaluate was test, is valid"),
        ({"data_path": str(tmp_path / "other")}, "data_path was .*data, is .*other"),
        ({"steps": 41}, "steps was 40, is 41"),
        ({"evaluate": "valid", "against": str(tmp_path / "out")}, "--against: .*cases.csv has other valid volumes than"),
    ]:
        if "data_path" in other:
            write_discs(tmp_path / "other")
        with pytest.raises(UserError, match=message):
            main(flags_of(tmp_path, **constants | other))
    assert table.stat().st_mtime_ns == written


def test_the_rate_rises_then_falls_to_nothing():
    rates = [factor(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25) and max(rates) == rates[24] and rates[-1] < 1e-3
    assert rates[:25] == sorted(rates[:25]) and rates[24:] == sorted(rates[24:], reverse=True)


@pytest.mark.parametrize("share_of_others", [0.5, 0.004])
def test_pixels_are_those_that_the_script_sees(tmp_path, share_of_others):
    """Also where more than 99 % of the voxels are equal, so that low and high percentiles are."""
    draws = np.random.default_rng(0)
    image = np.where(draws.random((70, 60, 5)) < share_of_others, draws.integers(1, 900, (70, 60, 5)), 0).astype(np.int16)
    np.savez(tmp_path / "case.npz", image=image, label=(image > 0).astype(np.uint8))
    (case,) = find_cases(tmp_path)
    found = read(case, (32, 32))
    theirs = whole_view(collate_whole([WholeCases([case], (32, 32))[0, 0]]), "volume", torch.float32)
    assert torch.isfinite(theirs).all() and theirs.std() > 0
    torch.testing.assert_close((found.images - found.mean) / found.deviation, theirs)


@pytest.mark.parametrize(
    "other, message",
    [
        ({"crop_size": (64, 64)}, "--crop_size 64 64 is more than the plane of 32 x 32"),
        ({"crop_size": (0, 0)}, "--crop_size is 0 0; its sides must be multiples of 32"),
        ({"image_size": (48, 32)}, "--image_size is 48 32; its sides must be multiples of 32"),
        ({"steps": 0}, "--steps is 0; it must be above 0"),
        ({"batch_size": 0}, "--batch_size is 0; it must be above 0"),
        ({"batch_size": 1}, "One slice of 32 x 32 is too little for batch norm; raise --batch_size or --image_size"),
        ({"seeds": ()}, "--seeds is without a value"),
        ({"seeds": (0, 0)}, "names a seed twice"),
        ({"against": "/nowhere"}, "--against: /nowhere/seed-0/cases.csv cannot be read as scores"),
    ],
)
def test_what_cannot_be_learned_or_compared_is_told_before_the_training(tmp_path, other, message):
    with pytest.raises(UserError, match=message):
        main(flags_of(tmp_path, **other))
    assert not (tmp_path / "out").exists()


def test_a_network_that_there_is_not_is_refused():
    with pytest.raises(SystemExit) as stop:
        tyro.cli(Flags, args=["--data_path", "x", "--arch", "foo"], use_underscores=True)
    assert stop.value.code == 2


def test_labels_that_no_class_names_are_told_before_the_training(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        write_discs(tmp_path / "data" / split)
    for path in list((tmp_path / "data/test").iterdir()):
        with np.load(path) as arrays:
            image, label = arrays["image"], arrays["label"]
        label[0, 0, 0] = 77
        np.savez(path.with_name(path.name.replace("patient", "other")), image=image, label=label)
        path.unlink()
    with pytest.raises(DataError, match="has unmapped label values: 77"):
        main(flags_of(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_empty_is_told_before_the_training(tmp_path):
    (tmp_path / "data").mkdir()
    write_discs(tmp_path / "data/train")
    with pytest.raises(UserError, match="has no test volumes"):
        main(flags_of(tmp_path))
    assert not (tmp_path / "out").exists()
