import re

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK

from datasets.cases import Case, deal_splits, find_cases, labels_in_words, taken_for_labels
from datasets.errors import DataError

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def write(root, *names, shape=(2, 3, 4)):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
        if name.endswith(".npz"):
            np.savez(path, image=voxels, label=voxels % 3)
        elif name.endswith(".npy"):
            np.save(path, voxels)
        elif name.endswith((".nrrd", ".mha")):
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path))
        else:
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)


def found(root, *args, **kwargs) -> list[tuple]:
    """(image, label, subject, split) of the cases, with paths relative to the root."""
    cases = find_cases(root, *args, **kwargs)
    for case in cases:
        assert case.path == root / case.name
    relative = lambda path: None if path is None else path.relative_to(root).as_posix()  # noqa: E731
    return [(case.name, relative(case.label_path), case.subject, case.split) for case in cases]


def case_of(name: str, split="", subject="") -> Case:
    return Case(None, name, None, subject or name, split)


# ---- layouts of published sets


def test_mmwhs(tmp_path):
    write(tmp_path, *(f"ct_train/ct_train_{case}_{kind}.nii.gz" for case in (1001, 1002, 1010) for kind in ("image", "label")))
    write(tmp_path, "mr_train/mr_train_1001_image.nii.gz", "mr_train/mr_train_1001_label.nii.gz")
    cases = found(tmp_path, "ct_train_*_image.nii.gz", "ct_train_*_label.nii.gz")
    assert cases[0] == (
        "ct_train/ct_train_1001_image.nii.gz", "ct_train/ct_train_1001_label.nii.gz", "ct_train/ct_train_1001", "",
    )  # fmt: skip
    assert len(cases) == 3 and len(found(tmp_path)) == 4


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_brats(tmp_path, ending):
    for grade, case in [("HGG", "Brats18_CBICA_AAB_1"), ("LGG", "Brats18_TCIA09_141_1")]:
        write(tmp_path, *(f"{grade}/{case}/{case}_{kind}.{ending}" for kind in ("flair", "t1", "t1ce", "t2", "seg")))
    cases = found(tmp_path, f"*_flair.{ending}", f"*_seg.{ending}")
    first = "HGG/Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1"
    assert cases[0] == (f"{first}_flair.{ending}", f"{first}_seg.{ending}", "Brats18_CBICA_AAB_1", "")
    assert len(cases) == 2
    with pytest.raises(DataError, match=r"_flair\.nii.* has no label \(7 more have none\): .*--image_pattern"):
        find_cases(tmp_path)


@pytest.mark.parametrize("patterns", [(), ("*_frame*.nii.gz", "*_frame*_gt.nii.gz")])
def test_acdc_with_frames_of_a_patient_and_the_4d_file_that_they_come_from(tmp_path, patterns):
    for patient, frames in [("patient001", ("01", "12")), ("patient002", ("01", "09"))]:
        write(tmp_path, *(f"{patient}/{patient}_frame{frame}{mark}.nii.gz" for frame in frames for mark in ("", "_gt")))
        write(tmp_path, f"{patient}/{patient}_4d.nii.gz", shape=(2, 3, 4, 5))
    cases = found(tmp_path, *patterns)
    assert [subject for _, _, subject, _ in cases] == ["patient001", "patient001", "patient002", "patient002"]
    assert cases[1][:2] == ("patient001/patient001_frame12.nii.gz", "patient001/patient001_frame12_gt.nii.gz")
    assert [label for _, label, _, _ in found(tmp_path, *patterns, need_labels=False)] == [case[1] for case in cases]


def test_archives_of_image_and_label_in_folders_of_splits(tmp_path):
    write(
        tmp_path, "train/patient003_frame01.npz", "train/patient003_frame02.npz", "test/patient010_frame01.npz", "other/x.npz"
    )
    assert found(tmp_path) == [
        ("test/patient010_frame01.npz", "test/patient010_frame01.npz", "patient010", "test"),
        ("train/patient003_frame01.npz", "train/patient003_frame01.npz", "patient003", "train"),
        ("train/patient003_frame02.npz", "train/patient003_frame02.npz", "patient003", "train"),
    ]
    np.savez(tmp_path / "train/patient004_frame01.npz", image=VOXELS)
    with pytest.raises(DataError, match=r"patient004_frame01\.npz has no label: "):
        find_cases(tmp_path)
    assert found(tmp_path, need_labels=False)[-1][1] is None


def test_la2018_with_a_folder_a_case(tmp_path):
    write(
        tmp_path, *(f"{case}/{name}.nrrd" for case in ("06SR5RBREL", "1D7CUD1955") for name in ("lgemri", "laendo", "lawall"))
    )
    cases = found(tmp_path, "lgemri.nrrd", "laendo.nrrd")
    assert [case[:2] for case in cases] == [(f"{c}/lgemri.nrrd", f"{c}/laendo.nrrd") for c in ("06SR5RBREL", "1D7CUD1955")]
    assert len({case[2] for case in cases}) == 2
    assert cases == found(tmp_path, "*/lgemri.nrrd", "*/laendo.nrrd")


def test_la2018_as_archives_of_image_and_label(tmp_path):
    (tmp_path / "06SR5RBREL").mkdir()
    with h5py.File(tmp_path / "06SR5RBREL/mri_norm2.h5", "w") as file:
        file["image"], file["label"] = VOXELS, VOXELS % 2
    (case,) = find_cases(tmp_path)
    assert case.label_path == case.path and case.fault() == ""


def test_the_decathlon_and_nnunet(tmp_path):
    write(tmp_path, "Task04/imagesTr/h_001.nii.gz", "Task04/labelsTr/h_001.nii.gz", "Task04/imagesTs/h_002.nii.gz")
    write(tmp_path, "Task04/imagesTr/._h_001.nii.gz")  # macOS's, which the archives hold
    write(tmp_path, *(f"D1/imagesTr/la_003_{channel}.nii.gz" for channel in ("0000", "0001")), "D1/labelsTr/la_003.nii.gz")
    cases = found(tmp_path)
    assert cases == [
        ("D1/imagesTr/la_003_0000.nii.gz", "D1/labelsTr/la_003.nii.gz", "D1/imagesTr/la_003", ""),
        ("Task04/imagesTr/h_001.nii.gz", "Task04/labelsTr/h_001.nii.gz", "Task04/imagesTr/h_001", ""),
    ]
    every = found(tmp_path, need_labels=False)
    assert every[-1] == ("Task04/imagesTs/h_002.nii.gz", None, "Task04/imagesTs/h_002", "test") and len(every) == 3
    assert found(tmp_path, "imagesTr/*_0001.nii.gz", "labelsTr/*.nii.gz")[0][:2] == (
        "D1/imagesTr/la_003_0001.nii.gz", "D1/labelsTr/la_003.nii.gz",
    )  # fmt: skip
    write(tmp_path, "Task04/labelsTs/h_002.nii.gz", "Task04/imagesTs/h_003.nii.gz")
    with pytest.raises(DataError, match=r"imagesTs/h_003\.nii\.gz has no label"):
        find_cases(tmp_path)


def test_names_that_end_in_a_number_are_no_channels_where_each_has_a_label(tmp_path):
    write(tmp_path, *(f"{folder}Tr/case_000{number}.nii.gz" for folder in ("images", "labels") for number in range(3)))
    assert [case[1] for case in found(tmp_path)] == [f"labelsTr/case_000{number}.nii.gz" for number in range(3)]


# ---- by custom


@pytest.mark.parametrize(
    "image, label",
    [
        ("a.nii.gz", "a_label.nii.gz"),
        ("a_image.nii.gz", "a_seg.nii"),
        ("b/a.mha", "b/a-gt.nrrd"),
        ("a.npy", "a_mask.npy"),
        ("images/b/a_image.nii.gz", "labels/b/a_label.nii.gz"),
        ("images/a.nii.gz", "masks/a.npy"),
        ("train/images/a.npz", "train/labels/a.npz"),
    ],
)
def test_a_label_is_found_beside_its_image_or_in_a_folder_of_labels(tmp_path, image, label):
    write(tmp_path, image, label)
    assert [case[:2] for case in found(tmp_path)] == [(image, label)]


def test_what_is_not_clear_is_refused(tmp_path):
    write(tmp_path, "a.nii.gz", "a_seg.nii.gz", "b.nii.gz")
    with pytest.raises(DataError, match=r"b\.nii\.gz has no label: "):
        find_cases(tmp_path)
    assert found(tmp_path, need_labels=False)[1] == ("b.nii.gz", None, "b", "")
    write(tmp_path, "b_seg.nii.gz", "c_seg.nii.gz")
    with pytest.raises(DataError, match=r"c_seg\.nii\.gz is a label without an image"):
        find_cases(tmp_path)
    write(tmp_path, "a_mask.nii.gz")
    with pytest.raises(DataError, match=r"a\.nii\.gz has 2 labels, a_mask\.nii\.gz and a_seg\.nii\.gz"):
        find_cases(tmp_path)
    (tmp_path / "a_mask.nii.gz").unlink()
    write(tmp_path, "a_image.nii.gz")
    with pytest.raises(DataError, match=r"a_seg\.nii\.gz would be the label of a\.nii\.gz and a_image\.nii\.gz"):
        find_cases(tmp_path)


def test_where_no_labels_are_needed_it_does_not_matter_whose_they_are(tmp_path):
    write(tmp_path, "a.nii.gz", "a_seg.nii.gz", "a_mask.nii.gz", "b.nii.gz", "b_image.nii.gz", "b_seg.nii.gz")
    assert [case[0] for case in found(tmp_path, need_labels=False)] == ["a.nii.gz", "b.nii.gz", "b_image.nii.gz"]


def test_files_that_are_taken_for_labels_are_told(tmp_path):
    write(tmp_path, "ct_seg.nii.gz")
    with pytest.raises(
        DataError, match=r"has no images .*; 1 file was taken for labels .* left out \(ct_seg\.nii\.gz\); --image"
    ):
        find_cases(tmp_path, need_labels=False)
    write(tmp_path, "a.nii.gz", "a_mask.nii.gz", "imagesTr/b.nii.gz", "labelsTr/b.nii.gz", "d-gt.nii.gz")
    labels = taken_for_labels(tmp_path)
    assert labels == ["a_mask.nii.gz", "ct_seg.nii.gz", "d-gt.nii.gz", "labelsTr/b.nii.gz"]
    assert labels_in_words(labels).startswith("4 files were taken for labels by name and left out (a_mask.nii.gz, ")
    assert taken_for_labels(tmp_path, "*.nii.gz") == [] and labels_in_words([]) == ""
    (tmp_path / "cases.csv").write_text("image,label\na.nii.gz,\n", encoding="utf-8")
    assert taken_for_labels(tmp_path) == []


def test_of_an_archive_with_several_arrays_the_array_is_to_be_called_image(tmp_path):
    np.savez(tmp_path / "a.npz", first=VOXELS, second=VOXELS)
    (case,) = find_cases(tmp_path, need_labels=False)
    said = r"2 of its arrays could be the volume, of first, second; call it image, or let prepare_data\.py --array name it"
    assert re.search(said, case.fault())


def test_empty_and_missing_folders_and_lonely_patterns_are_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        find_cases(tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"{tmp_path} has no images .* with labels; name files with .* --label_pattern"):
        find_cases(tmp_path)
    with pytest.raises(
        DataError, match=r"has no images \(NIfTI, [^)]*\); name another folder with --data_path, or files with --im"
    ):
        find_cases(tmp_path, need_labels=False)
    with pytest.raises(DataError, match="No volumes are given; name the folder of images and their labels with --data_path"):
        find_cases("")
    write(tmp_path, "a.nii.gz", "a_seg.nii.gz")
    with pytest.raises(DataError, match=r"has no file \*_ct\.nii\.gz"):
        find_cases(tmp_path, "*_ct.nii.gz", "*_seg.nii.gz")
    for patterns in [("*.nii.gz", ""), ("", "*_seg.nii.gz")]:
        with pytest.raises(DataError, match="go together"):
            find_cases(tmp_path, *patterns)
    with pytest.raises(DataError, match=r"have not as many \*"):
        find_cases(tmp_path, "*.nii.gz", "seg.nii.gz")
    assert found(tmp_path, "*.nii.gz", "*_seg.nii.gz") == [("a.nii.gz", "a_seg.nii.gz", "a", "")]
    assert len(found(tmp_path, "*.nii.gz", need_labels=False)) == 2


def test_a_pattern_takes_its_signs_as_they_are(tmp_path):
    write(tmp_path, "a+1.nii.gz", "a+1[x].nii.gz", "aa1.nii.gz", "aa1[x].nii.gz")
    assert [case[:2] for case in found(tmp_path, "a+*.nii.gz", "a+*[x].nii.gz")] == [("a+1.nii.gz", "a+1[x].nii.gz")]


# ---- by a table


def test_a_table_tells_labels_subjects_and_splits(tmp_path):
    write(tmp_path, "x/1.nii.gz", "y/1.nii.gz", "x/2.nii.gz", "z.npz")
    table = "image,label,subject,split\nz.npz,z.npz,,\nx/1.nii.gz,y/1.nii.gz,anna,valid\nx/2.nii.gz,,berta,\n"
    (tmp_path / "cases.csv").write_text("\ufeff" + table, encoding="utf-8")
    expected = [("x/1.nii.gz", "y/1.nii.gz", "anna", "valid"), ("x/2.nii.gz", None, "berta", ""), ("z.npz", "z.npz", "z", "")]
    assert found(tmp_path, need_labels=False) == expected
    with pytest.raises(DataError, match=r"x/2\.nii\.gz has no label"):
        find_cases(tmp_path)
    (tmp_path / "cases.csv").rename(tmp_path / "mine.csv")
    assert found(tmp_path, need_labels=False, manifest="mine.csv") == expected
    assert found(tmp_path, need_labels=False, manifest=str(tmp_path / "mine.csv")) == expected
    with pytest.raises(DataError, match="not with a table"):
        find_cases(tmp_path, "x/*.nii.gz", "y/*.nii.gz", manifest="mine.csv")


@pytest.mark.parametrize(
    "row, said",
    [
        ("../a.nii.gz,a.nii.gz,,", r"names '\.\./a\.nii\.gz', which is no file below"),
        ("a.nii.gz,/etc/passwd,,", "names '/etc/passwd', which is no file below"),
        ("a.nii.gz,b.nii.gz,,", r"names 'b\.nii\.gz', which is no file"),
        (",a.nii.gz,,", "names '', which is no file"),
        ("a.nii.gz,a.nii.gz,,", r"names a\.nii\.gz as its own label"),
        ("a.nii.gz,b_seg.nii.gz,,val", "the split 'val'; use train, valid, test"),
        ("a.nii.gz,b_seg.nii.gz,,\na.nii.gz,b_seg.nii.gz,,", r"names a\.nii\.gz twice"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(tmp_path, row, said):
    write(tmp_path, "data/a.nii.gz", "data/b_seg.nii.gz", "a.nii.gz")
    (tmp_path / "data/cases.csv").write_text(f"image,label,subject,split\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"data/cases\.csv .*{said}"):
        find_cases(tmp_path / "data")


def test_a_table_without_its_columns_or_none_at_all_is_refused(tmp_path):
    (tmp_path / "cases.csv").write_text("scan,label\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"cases\.csv needs the columns image,label"):
        find_cases(tmp_path)
    with pytest.raises(
        DataError, match=r"none\.csv cannot be read \(No such file or directory\); name a CSV table with --manifest"
    ):
        find_cases(tmp_path, manifest="none.csv")


# ---- whose they are, and which split


def test_a_pattern_tells_the_subject_of_every_case_or_is_refused(tmp_path):
    write(tmp_path, *(f"train/{name}{mark}.nii.gz" for name in ("s1_visit1", "s1_visit2") for mark in ("", "_seg")))
    assert [case[2] for case in found(tmp_path, subject_pattern=r"(s\d+)_")] == ["s1", "s1"]
    for pattern, said in [("(", "is no regular expression"), ("s", "has 0 groups"), (r"(s2)", "finds no subject in train/s1")]:
        with pytest.raises(DataError, match=said):
            find_cases(tmp_path, subject_pattern=pattern)


@pytest.mark.parametrize("layout", ["sub-{who:02}_ses-{visit}_T1w", "patient{who:03}/visit{visit}", "x{who}/visit{visit}"])
@pytest.mark.parametrize("split", ["", "train/"])
def test_visits_of_a_person_go_into_one_split(tmp_path, layout, split):
    names = [split + layout.format(who=who, visit=visit) for who in range(10) for visit in (1, 2)]
    write(tmp_path, *(f"{name}{mark}.nii.gz" for name in names for mark in ("", "_label")))
    split_of = {case.name.removesuffix(".nii.gz"): case.split for case in deal_splits(find_cases(tmp_path))}
    assert all(split_of[one] == split_of[other] for one, other in zip(names[::2], names[1::2]))
    assert set(split_of.values()) == ({"train", "valid"} if split else {"train", "valid", "test"})


def test_parts_of_names_win_over_folders_and_are_whole_numbers():
    cases = [case_of(f"ct_train_{number}_image.nii.gz", "train") for number in (1001, 1004, 11004, 1010)]
    splits = [case.split for case in deal_splits(cases, ("1004",), ("1010",))]
    assert splits == ["train", "valid", "train", "test"]
    for valid, test, said in [
        (("100",), (), "--valid_cases 100 is in the name of no case"),
        (("",), (), "--valid_cases  is in the name of no case"),
        (("1004",), ("ct_train_1004",), "named by --valid_cases and by --test_cases"),
        (("ct",), (), "no case is left to train on"),
    ]:
        with pytest.raises(DataError, match=said):
            deal_splits(cases, valid, test)


def test_a_subject_in_two_splits_is_named():
    cases = [case_of("train/a1", "train", "anna"), case_of("test/a2", "test", "anna")]
    with pytest.raises(DataError, match="Subject anna is in two splits, train and test"):
        deal_splits(cases)
    unknown = [case_of("a1", "", "anna"), case_of("a2", "test", "anna"), case_of("b", "valid"), case_of("c")]
    assert [case.split for case in deal_splits(unknown)] == ["test", "test", "valid", "train"]


# ---- what is wrong with them


def test_headers_tell_what_does_not_fit_and_all_voxels_the_rest(tmp_path):
    write(tmp_path, *(f"{name}{mark}.nii.gz" for name in "abc" for mark in ("", "_seg")))
    write(tmp_path, "b_seg.nii.gz", shape=(2, 3, 5))
    (tmp_path / "c.nii.gz").write_bytes(b"no")
    nibabel.save(nibabel.Nifti1Image(VOXELS / 2, np.eye(4)), tmp_path / "a_seg.nii.gz")
    cases = find_cases(tmp_path)
    concerns = Case.concerns(cases)
    assert [cannot_be_read for cannot_be_read, _ in concerns] == [True, True]
    assert "b_seg.nii.gz has 3 x 2 x 5 voxels" in concerns[0][1] and "c.nii.gz cannot be read" in concerns[1][1]
    assert ["value 0.5" in cases[0].fault(), "voxels" in cases[1].fault(), "cannot" in cases[2].fault()] == [True] * 3
    write(tmp_path, "a_seg.nii.gz")
    assert cases[0].fault() == "" and Case.concerns(cases[:1]) == []
    nibabel.save(nibabel.Nifti1Image(VOXELS * 0, np.eye(4)), tmp_path / "a.nii.gz")
    assert "same value, 0, in every voxel" in cases[0].fault()
