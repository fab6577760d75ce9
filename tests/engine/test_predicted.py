from pathlib import Path

import pytest

from engine.errors import UserError
from engine.predicted import NOTE, TABLE, take_folder

ABOUT = {"weights": "g.pth", "sha256": "1", "data": "/scans", "channel": "none", "precision": "float32"}


def maps(folder: Path, *names: str) -> list[Path]:
    return [folder / f"{name}.nii.gz" for name in names]


def made(folder: Path, *names: str, **about) -> None:
    """Predictions of these names."""
    targets = maps(folder, *names)
    take_folder(folder, ABOUT | about, targets, overwrite=False)
    for path in targets:
        path.write_text("", encoding="utf-8")


def test_the_same_network_goes_on_also_with_other_files(tmp_path):
    made(tmp_path, "a", "b")
    made(tmp_path, "b", "c", weights="moved/g.pth")
    assert len(list(tmp_path.iterdir())) == 4 and "moved/g.pth" in (tmp_path / NOTE).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "about, words",
    [
        ({"sha256": "2"}, r"other weights \(g\.pth\)"),
        ({"channel": 3}, r"another channel \(none\)"),
        ({"data": "/more"}, r"another folder \(/scans\)"),
        ({"precision": "bfloat16"}, r"another precision \(float32\)"),
    ],
)
def test_what_changes_the_outcome_is_refused_and_changes_nothing(tmp_path, about, words):
    made(tmp_path, "a")
    before = (tmp_path / NOTE).read_bytes()
    with pytest.raises(UserError, match=f"holds predictions of {words}; choose another --output, or replace them"):
        made(tmp_path, "b", **about)
    assert (tmp_path / NOTE).read_bytes() == before and maps(tmp_path, "a")[0].exists()


def test_overwriting_removes_what_is_made_again_and_refuses_what_would_stay(tmp_path):
    made(tmp_path, "a", "b")
    with pytest.raises(UserError, match=r"b\.nii\.gz would stay beside predictions that are made otherwise; choose another"):
        take_folder(tmp_path, ABOUT | {"sha256": "2"}, maps(tmp_path, "a"), overwrite=True)
    assert maps(tmp_path, "a")[0].exists()
    take_folder(tmp_path, ABOUT | {"sha256": "2"}, maps(tmp_path, "a", "b"), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == [NOTE]  # a process that is killed now leaves none of the former ones


def test_predictions_of_which_nothing_says_what_made_them_are_not_taken_for_ours(tmp_path):
    maps(tmp_path, "a")[0].write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"of which no predictions\.json says what made them"):
        made(tmp_path, "a")
    take_folder(tmp_path, ABOUT, [tmp_path / TABLE], overwrite=False)  # beside images, say


def test_images_below_the_folder_are_no_predictions(tmp_path):
    (tmp_path / "scans").mkdir()
    maps(tmp_path / "scans", "a")[0].write_text("", encoding="utf-8")
    made(tmp_path, "a", data=str(tmp_path / "scans"))
