import csv

import numpy as np
import pytest
import SimpleITK as sitk

from datasets.classified import dealt, find_classified
from datasets.errors import DataError
from datasets.luna16 import Candidate, Candidates, find_scans, kept_candidates, main, read_candidates, split_of

HEADER = "seriesuid,coordX,coordY,coordZ,class"


@pytest.fixture
def luna(tmp_path):
    """Three series in subsets 0, 8 and 9, bright at their nodule; one flipped. Two of three candidates are false."""
    rows = [HEADER]
    for number, (fold, sign) in enumerate([(0, 1.0), (8, -1.0), (9, 1.0)]):
        voxels = np.full((20, 24, 28), -900, np.int16)  # z, y, x
        places = [(6, 8, 5), (20, 15, 12), (10, 18, 14)]  # x, y, z
        voxels[places[0][2], places[0][1], places[0][0]] = 1000
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing((0.7, 0.7, 1.25))
        image.SetOrigin((-50.0, 20.0 * number, 7.0))
        image.SetDirection(np.diag([sign, sign, 1.0]).flatten())
        folder = tmp_path / "scans" / f"subset{fold}"
        folder.mkdir(parents=True)
        sitk.WriteImage(image, folder / f"1.3.6.{number}.mhd")
        for place, label in zip(places, (1, 0, 0)):
            rows.append(",".join(map(str, [f"1.3.6.{number}", *image.TransformIndexToPhysicalPoint(place), label])))
    (tmp_path / "candidates.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def asked(root, **changes):
    paths = {"volumes": str(root / "scans"), "candidates": str(root / "candidates.csv"), "output": str(root / "out")}
    return Candidates(**{**paths, "shape": (5, 9, 9), "negatives": 1, **changes})


def test_patches_hold_their_nodules_in_the_middle_and_folds_are_splits(luna):
    main(asked(luna))
    data = dealt(find_classified(luna / "out", volumes=True))
    assert data.classes == ("0", "1")
    assert [(item.label, item.subject) for item in data.valid] == [("1", "1.3.6.1"), ("0", "1.3.6.1")]
    assert {item.subject for item in data.train} == {"1.3.6.0"} and {item.subject for item in data.test} == {"1.3.6.2"}
    for item in data.train + data.valid + data.test:
        patch = np.load(item.path)
        assert patch.shape == (9, 9, 5) and patch.dtype == np.int16 and np.isfortran(patch)
        brightest = np.unravel_index(patch.argmax(), patch.shape)
        assert brightest == (4, 4, 2) and patch.max() == 1000 if item.label == "1" else patch.max() <= -800


def test_all_false_candidates_are_kept_on_request_and_nothing_is_written_over(luna):
    main(asked(luna, negatives=0))
    with open(luna / "out" / "labels.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 9
    with pytest.raises(DataError, match="out holds labelled files already; name a new folder"):
        main(asked(luna))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"shape": (0, 8, 8)}, "--shape is 0 8 8; slices, rows and columns of a patch must be 1 or more"),
        ({"spacing": (0.0, 1.0, 1.0)}, "--spacing is 0 1 1; the mm"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "--spacing is 1 nan 1; the mm"),
        ({"negatives": -1}, "--negatives is -1; it must be 0, which keeps all, or above"),
        ({"valid": (9,), "test": (9,)}, "--valid and --test both name the fold 9"),
        ({"valid": (12,)}, "--valid is 12; the folds are 0 to 9"),
        ({"test": (-1,)}, "--test is -1; the folds are 0 to 9"),
        ({"valid": (8,), "test": (0, 1, 2, 3, 4, 5, 6, 7, 9)}, "name all ten folds; leave one"),
    ],
)
def test_numbers_that_give_no_patches_or_no_splits_are_refused(luna, changes, sentence):
    with pytest.raises(DataError, match=sentence):
        main(asked(luna, **changes))
    assert not (luna / "out").exists()


def test_a_split_without_a_candidate_is_told(luna, capsys):
    main(asked(luna, valid=(7,)))
    assert capsys.readouterr().out.endswith("; nothing is in the split valid\n")


def test_series_that_are_not_there_are_told(luna, capsys):
    (luna / "scans" / "subset8" / "1.3.6.1.mhd").unlink()
    with pytest.raises(DataError, match=r"1 series of .*candidates\.csv have no volume below .*--missing leave_out"):
        main(asked(luna))
    main(asked(luna, missing="leave_out"))
    assert "wrote 2 nodules and 2 other candidates of 2 series" in capsys.readouterr().out


def test_a_candidate_outside_its_scan_is_refused(luna):
    (luna / "candidates.csv").write_text(f"{HEADER}\n1.3.6.0,-50,0,900,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"Candidate 0 of series 1\.3\.6\.0 lies outside .*millimetres of the patient"):
        main(asked(luna))


@pytest.mark.parametrize(
    "text, sentence",
    [("seriesuid,x\n", "needs the columns seriesuid,coordX"), (f"{HEADER}\na,1,2,x,0\n", "line 2: coordinates must be numbers"),
     (f"{HEADER}\na,1,2,3,7\n", "line 2: .* the class 0 or 1"), (f"{HEADER}\na,1,2\n", "line 2")],
)  # fmt: skip
def test_a_table_that_is_none_of_candidates(tmp_path, text, sentence):
    (tmp_path / "c.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        read_candidates(tmp_path / "c.csv")


def test_a_folder_without_subsets_and_a_series_twice(luna):
    with pytest.raises(DataError, match=r"has no volumes in subset0 … subset9"):
        find_scans(luna)
    (luna / "scans" / "subset9" / "1.3.6.0.nii").touch()
    with pytest.raises(DataError, match="are of one series"):
        find_scans(luna / "scans")


def test_negatives_are_drawn_in_each_fold_in_no_order_and_more_hold_the_fewer(tmp_path):
    scans = {"a": tmp_path / "subset1/a.mhd", "b": tmp_path / "subset2/b.mhd"}
    many = [Candidate(n, "ab"[n % 2], (float(n), 0.0, 0.0), "1" if n in (0, 1, 3) else "0") for n in range(40)]
    few, more = (kept_candidates(many, scans, count) for count in (2, 3))
    assert [c.row for c in few] == [c.row for c in kept_candidates(many[::-1], scans, 2)] and set(few) < set(more)
    for series, nodules in [("a", 1), ("b", 2)]:
        assert sorted(c.label for c in few if c.series == series) == ["0"] * 2 * nodules + ["1"] * nodules


def test_folds_of_the_splits_may_be_chosen():
    assert [split_of(f"subset{n}", (0,), (1, 2)) for n in range(4)] == ["valid", "test", "test", "train"]
