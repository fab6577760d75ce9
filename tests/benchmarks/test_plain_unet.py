"""The plain loop that downstream figures are compared with."""

import pytest

from benchmarks.plain_unet import Flags, factor, main
from engine.errors import UserError
from engine.segmented_cases import dice_by_case
from tests.discs import write_discs


def test_discs_are_learned_and_finished_seeds_are_not_run_again(tmp_path, capsys):
    write_discs(tmp_path / "data")
    out = tmp_path / "out"
    flags = {"data_path": str(tmp_path / "data"), "image_size": (32, 32), "output": str(out), "evaluate": "test", "seeds": (0,)}
    main(Flags(**flags, steps=40, base_lr=3e-3))
    cases = dice_by_case([out / "seed-0" / "cases.csv"], "test")
    assert cases and min(dice for _, (dice,) in cases.values()) > 0.6

    written = (out / "seed-0" / "cases.csv").stat().st_mtime_ns
    main(Flags(**flags, against=str(out)))
    assert (out / "seed-0" / "cases.csv").stat().st_mtime_ns == written
    assert f"{out} - this: 0.000 (" in capsys.readouterr().out


def test_the_rate_rises_then_falls_to_nothing():
    rates = [factor(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25) and max(rates) == rates[24] and rates[-1] < 1e-3
    assert rates[:25] == sorted(rates[:25]) and rates[24:] == sorted(rates[24:], reverse=True)


def test_a_split_that_is_empty_is_told_before_the_training(tmp_path):
    (tmp_path / "data").mkdir()
    write_discs(tmp_path / "data/train")
    with pytest.raises(UserError, match="has no test volumes"):
        main(Flags(data_path=str(tmp_path / "data"), evaluate="test", output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
