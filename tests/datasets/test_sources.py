from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.errors import DataError
from datasets.identity import key_of, subject_by_name
from datasets.sources import find_sources


@pytest.mark.parametrize(
    "name, subject",
    [
        ("BraTS_0001/BraTS_0001_flair.nii.gz", "BraTS_0001"),
        ("training/patient001/patient001_4d.nii.gz", "patient001"),
        ("sub-07/ses-1/anat/sub-07_T1w.nii.gz", "sub-07"),
        ("sub-07_ses-1_T1w.nii.gz", "sub-07"),
        ("ct_train/ct_train_1001_image.nii.gz", "ct_train/ct_train_1001_image"),
        ("imagesTr/la_003.nii.gz", "imagesTr/la_003"),
        ("a.mha", "a"),
    ],
)
def test_a_person_is_told_by_the_names_of_folders(name, subject):
    assert subject_by_name(name) == subject


def volume(seed: int, shape=(9, 8, 7)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 99, shape).astype(np.int16)


def found(root: Path, **more):
    return find_sources(root, 1, **more)


def test_sources_are_the_same_and_in_the_same_order_wherever_files_are_called_otherwise(tmp_path):
    for root, names in [("a", "xyz"), ("b", "zxy")]:
        (tmp_path / root).mkdir()
        for seed, name in enumerate(names):
            np.save(tmp_path / root / f"{name}.npy", volume(seed))
    first, second = found(tmp_path / "a").sources, found(tmp_path / "b").sources
    assert [source.key for source in first] == [source.key for source in second] and len(first) == 3


def test_a_second_copy_is_left_out_but_not_what_is_alike_in_pieces(tmp_path):
    large = np.zeros((128, 128, 64), np.int16)
    np.save(tmp_path / "a.npy", large)
    other = large.copy()
    other.reshape(-1)[5000] = 7  # between the pieces that the quick digest reads
    np.save(tmp_path / "b.npy", other)
    np.save(tmp_path / "c.npy", other)
    assert key_of((tmp_path / "a.npy",)) == key_of((tmp_path / "b.npy",))
    all_found = found(tmp_path)
    assert len(all_found.sources) == 2 and all_found.left_out["files that are there twice"] == 1


def test_tables_of_labels_and_folders_of_splits_tell_label_person_and_split(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        np.save(tmp_path / split / "a.npy", volume(len(split)))
    (tmp_path / "labels.csv").write_text("path,label,subject\ntrain/a.npy,sick,anna\n", encoding="utf-8")
    sources = {source.name: source for source in found(tmp_path).sources}
    assert (sources["train/a.npy"].label, sources["train/a.npy"].subject, sources["train/a.npy"].split) == (
        "sick",
        "anna",
        "train",
    )
    assert sources["test/a.npy"].split == "test"


def test_somebody_elses_labels_csv_is_passed_over_and_said(tmp_path):
    np.save(tmp_path / "a.npy", volume(0))
    (tmp_path / "labels.csv").write_text("file,class\na.npy,1\n", encoding="utf-8")
    assert found(tmp_path).left_out["table labels.csv without the columns path,label"] == 1


def test_segmentations_and_other_kinds_of_files_are_counted(tmp_path):
    for name in ("a", "a_label", "a_seg"):
        np.save(tmp_path / f"{name}.npy", volume(0))
    (tmp_path / "readme.txt").write_text("x", encoding="utf-8")
    all_found = found(tmp_path)
    assert [source.name for source in all_found.sources] == ["a.npy"]
    assert sorted(count for count in all_found.left_out.values() if count) == [1, 2]


def test_tiff_files_of_one_page_are_pictures_and_of_more_are_volumes(tmp_path):
    page = Image.fromarray(volume(0)[:, :, 0].astype(np.uint8))
    page.save(tmp_path / "one.tif")
    page.save(tmp_path / "two.tif", save_all=True, append_images=[page])
    assert {source.name: source.kind for source in found(tmp_path).sources} == {"one.tif": "picture", "two.tif": "volume"}


def test_a_folder_with_nothing_to_prepare_is_refused(tmp_path):
    with pytest.raises(DataError, match="nothing to prepare"):
        found(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        found(tmp_path / "none")
