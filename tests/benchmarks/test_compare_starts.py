import pytest

from benchmarks.compare_starts import Cell, Flags, main, more_for, words_of


def finished(folder, cell, seed, dice):
    """A run that is over: the Dice of cases a, b, c, one class each."""
    here = folder / cell / f"seed-{seed}"
    here.mkdir(parents=True)
    rows = [f"{case},{case},{value}" for case, value in zip("abc", dice)]
    (here / "cases.csv").write_text("\n".join(["case,subject,dice", *rows]), encoding="utf-8")
    (here / "results.json").write_text("{}", encoding="utf-8")


def table(tmp_path, **flags):
    main(Flags(sets=("set=nowhere",), labelled=(2,), seeds=(0, 1), output=str(tmp_path), **flags))
    return (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()


def test_a_case_without_any_class_leaves_the_means_of_the_others(tmp_path):
    for seed, dice in enumerate([("0.5", "", "0.8"), ("0.7", "", "")]):
        finished(tmp_path, "set-2-random", seed, dice)
    line = table(tmp_path)[-1]
    assert "| 0.700 (" in line and "| 0.650 / 0.700 |" in line


def test_what_is_finished_is_not_run_again_and_compared_case_by_case(tmp_path):
    for seed in (0, 1):
        finished(tmp_path, "set-2-random", seed, ("0.5", "0.6", "0.9"))
        finished(tmp_path, "set-2-ours", seed, ("0.6", "0.7", "1.0"))
    lines = table(tmp_path, starts=("random=", "ours=file.pth+context"))
    assert lines[-1].endswith("| +0.100 (+0.100 to +0.100) |")


def test_a_run_that_fails_ends_all_and_names_its_log(tmp_path):
    with pytest.raises(SystemExit, match=r"set-2-random.seed-0 ended with code 2; .*log.txt"):
        table(tmp_path)
    assert "nowhere" in (tmp_path / "set-2-random/seed-0/log.txt").read_text(encoding="utf-8")


def test_constants_of_one_set_win_over_those_of_all():
    flags = Flags(sets=("a=.", "b=."), more=("a:image_size=96,64", "epochs=8", "image_size=32,32", "no_check_data"))
    of_a = ["--epochs", "8", "--image_size", "32", "32", "--no_check_data", "--image_size", "96", "64"]
    assert more_for(flags, "a") == of_a and more_for(flags, "b") == of_a[:-3]


def test_a_run_learns_from_what_its_cell_says():
    flags = Flags(sets=("a=A", "b=B"), starts=("random=", "ours=file.pth+context"), pretrained_path="W", evaluate="valid")
    of_all = ["--pretrained_path", "W", "--start_from"]
    assert words_of(flags, Cell("b", 2, "random", 1)) == [
        *("--data_path", "B", "--labelled", 2, "--seed", 1, *of_all, "", "--evaluate", "valid")
    ]
    assert words_of(flags, Cell("a", 5, "ours", 0)) == [
        *("--data_path", "A", "--labelled", 5, "--seed", 0, *of_all, "file.pth", "--evaluate", "valid", "--context")
    ]
