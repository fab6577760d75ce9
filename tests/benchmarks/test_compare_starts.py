import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare_starts
from benchmarks.compare_starts import Cell, Flags, asked_of, main, more_for, words_of
from benchmarks.finished import begin
from engine.errors import UserError


def flags_of(folder, **other):
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights/file.pth").write_bytes(b"weights")
    of_test = {"sets": ("set=nowhere",), "labelled": (2,), "seeds": (0, 1), "output": str(folder)}
    return Flags(**{**of_test, "pretrained_path": str(folder / "weights"), **other})


def finish(flags, start, dice_of_seeds):
    """Runs that are over: of each seed the Dice of cases a, b, c, one class each."""
    for seed, dice in zip(flags.seeds, dice_of_seeds):
        cell = Cell("set", 2, start, seed)
        here = cell.folder(flags.output)
        begin(here, asked_of(flags, cell))
        rows = [f"{case},{case},{flags.evaluate},{value}" for case, value in zip("abc", dice)]
        (here / "cases.csv").write_text("\n".join(["case,subject,split,dice", *rows]), encoding="utf-8")
        (here / "results.json").write_text("{}", encoding="utf-8")


def table(flags):
    main(flags)
    return Path(flags.output, "table.md").read_text(encoding="utf-8").splitlines()


def test_a_case_without_any_class_leaves_the_means_of_the_others(tmp_path):
    flags = flags_of(tmp_path)
    finish(flags, "random", [("0.5", "", "0.8"), ("0.7", "", "")])
    line = table(flags)[-1]
    assert "| 0.700 (" in line and "| 0.650 / 0.700 |" in line


def test_what_is_finished_is_not_run_again_and_compared_case_by_case(tmp_path):
    flags = flags_of(tmp_path, starts=("random=", "ours=file.pth+context"))
    finish(flags, "random", [("0.5", "0.6", "0.9")] * 2)
    finish(flags, "ours", [("0.6", "0.7", "1.0")] * 2)
    lines = table(flags)
    assert "| Dice on test |" in lines[0] and lines[-1].endswith("| +0.100 (+0.100 to +0.100) |")


@pytest.mark.parametrize(
    "other, message",
    [
        ({"evaluate": "test"}, "evaluate was valid, is test"),
        ({"sets": ("set=/elsewhere",)}, "data_path was .*/nowhere, is /elsewhere"),
        ({"more": ("epochs=8",)}, "epochs was not given, is 8"),
        ({"starts": ("ours=file.pth",)}, r"context was empty, is not given"),
        ({"starts": ("ours=other.pth+context",)}, "start_from was SHA-256 [0-9a-f]{16}, is SHA-256 [0-9a-f]{16}"),
    ],
)
def test_scores_of_another_run_are_refused_and_the_table_stays(tmp_path, other, message):
    flags = flags_of(tmp_path, starts=("ours=file.pth+context",), evaluate="valid")
    finish(flags, "ours", [("0.5", "0.6", "0.9")] * 2)
    before = table(flags)
    (tmp_path / "weights/other.pth").write_bytes(b"other weights")
    given = {"starts": flags.starts, "evaluate": "valid"} | other
    with pytest.raises(UserError, match=rf"set-2-ours/seed-0 holds the scores of another run \({message}\)"):
        main(flags_of(tmp_path, **given))
    assert (tmp_path / "table.md").read_text(encoding="utf-8").splitlines() == before


def test_another_file_of_the_same_name_is_another_start_and_the_same_file_elsewhere_is_not(tmp_path):
    flags = flags_of(tmp_path, starts=("ours=file.pth",))
    finish(flags, "ours", [("0.5", "0.6", "0.9")] * 2)
    (tmp_path / "moved").mkdir()
    (tmp_path / "weights/file.pth").rename(tmp_path / "moved/renamed.pth")
    main(flags_of(tmp_path, starts=("ours=renamed.pth",), pretrained_path=str(tmp_path / "moved")))
    (tmp_path / "moved/renamed.pth").write_bytes(b"trained again")
    with pytest.raises(UserError, match="start_from was"):
        main(flags_of(tmp_path, starts=("ours=renamed.pth",), pretrained_path=str(tmp_path / "moved")))


def test_a_run_that_fails_ends_all_and_names_its_log(tmp_path):
    with pytest.raises(UserError, match=r"set-2-random.seed-0 ended with code 2; .*log.txt"):
        main(flags_of(tmp_path))
    assert "nowhere" in (tmp_path / "set-2-random/seed-0/log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "other, message",
    [
        ({"jobs": 0}, "--jobs is 0; it must be above 0"),
        ({"sets": ()}, "--sets names nothing"),
        ({"starts": ()}, "--starts names nothing"),
        ({"seeds": ()}, "--seeds names nothing"),
        ({"sets": ("set",)}, "--sets set is not name=folder"),
        ({"sets": ("set=",)}, "--sets set= is not name=folder"),
        ({"sets": ("a/b=c",)}, "--sets a/b=c is not name=folder"),
        ({"starts": ("random",)}, "--starts random is not name=file"),
        ({"sets": ("A=x", "A=y")}, "--sets names A=x A=y; give one at least, and none twice"),
        ({"labelled": (2, 2)}, "--labelled names 2 2"),
        ({"labelled": (-1,)}, "--labelled is -1"),
        ({"starts": ("ours=nothing.pth",)}, r"nothing.pth cannot be read \(No such file"),
        ({"more": ("other:epochs=8",)}, "--more other:epochs=8 is for other, which is none of --sets"),
        ({"more": ("evaluate=valid",)}, "--more evaluate=valid would replace"),
        ({"more": ("set:data-path=x",)}, "--more set:data-path=x would replace"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_is(tmp_path, other, message):
    flags = flags_of(tmp_path, **{"output": str(tmp_path / "out"), **other})
    with pytest.raises(UserError, match=message):
        main(flags)
    assert not (tmp_path / "out").exists()


def test_bad_flags_end_it_with_a_sentence_and_code_2():
    ended = subprocess.run([sys.executable, compare_starts.__file__, "--sets", "A"], capture_output=True, encoding="utf-8")
    assert ended.returncode == 2 and ended.stderr.startswith("error: --sets A is not name=folder")
    assert len(ended.stderr.splitlines()) == 1


def test_constants_of_one_set_win_over_those_of_all():
    flags = Flags(sets=("a=.", "b=."), more=("a:image_size=96,64", "epochs=8", "image_size=32,32", "no_check_data"))
    of_a = ["--epochs", "8", "--image_size", "32", "32", "--no_check_data", "--image_size", "96", "64"]
    assert more_for(flags, "a") == of_a and more_for(flags, "b") == of_a[:-3]
    assert asked_of(flags, Cell("a", 2, "random", 0))["image_size"] == ["96", "64"]


def test_a_run_learns_from_what_its_cell_says():
    flags = Flags(sets=("a=A", "b=B"), starts=("random=", "ours=file.pth+context"), pretrained_path="W", evaluate="valid")
    of_all = ["--pretrained_path", "W", "--start_from"]
    assert words_of(flags, Cell("b", 2, "random", 1)) == [
        *("--data_path", "B", "--labelled", 2, "--seed", 1, *of_all, "", "--evaluate", "valid")
    ]
    assert words_of(flags, Cell("a", 5, "ours", 0)) == [
        *("--data_path", "A", "--labelled", 5, "--seed", 0, *of_all, "file.pth", "--evaluate", "valid", "--context")
    ]
