import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.files import Item
from datasets.people import folders_of_people, subjects_by_names, with_subjects

PEOPLE = range(10)


def told(*names: str) -> list[str]:
    """The different subjects that are told, and a "" for each file that is nobody's."""
    subjects = subjects_by_names(names).values()
    return sorted({subject for subject in subjects if subject}) + [""] * sum(not subject for subject in subjects)


@pytest.mark.parametrize(
    "name, subject",
    [
        ("sub-00_ses-1_T1w.nii.gz", "sub-00"),
        ("sub-00_ses-1/anat/T1w.nii.gz", "sub-00"),
        ("anat/sub-anna.nii.gz", "sub-anna"),
        ("patient001/visit1.nii.gz", "patient001"),
        ("site/P07/2019/slice_001.png", "P07"),
        ("case_12/imaging.nii.gz", "case_12"),
        ("patient001_pre.nii.gz", "patient001"),
        ("patient003_frame01.npz", "patient003"),
        ("a/Brats18_TCIA04_149_1_slice_019.png", "a/Brats18_TCIA04_149_1"),
        ("anna_ses-1.png", "anna"),
        ("anna_visit2_slice3.png", "anna"),
        # nobody's: the whole name, a collection, a site, a case that is the file itself
        ("patient001.nii.gz", ""),
        ("imagesTr/case_0001.nii.gz", ""),
        ("LA2018_Heart/a.npy", ""),
        ("site1/a.npy", ""),
        ("ct_train/ct_train_1001_image.nii.gz", ""),
    ],
)
def test_one_name_tells_whose_a_file_is(name, subject):
    assert subjects_by_names([name]) == {name: subject}


@pytest.mark.parametrize(
    "layout",
    [
        "X{who:02}/{visit}.nii.gz",
        "anna{who}/{visit}.nii.gz",
        "HGG/X{who:02}/{visit}.nii.gz",
        "X{who:02}/2019-{visit}/t1.nii.gz",
        "X{who:02}/2{who}0{visit}/t1.nii.gz",  # every visit's folder is called otherwise
        "X{who:02}/X{who:02}_{visit}.nii.gz",
    ],
)
def test_a_folder_among_many_alike_is_a_person(layout):
    names = [layout.format(who=who, visit=visit) for who in PEOPLE for visit in (1, 2)]
    subjects = subjects_by_names(names)
    assert "" not in subjects.values() and len(set(subjects.values())) == len(PEOPLE)
    assert all(subjects[one] == subjects[other] for one, other in zip(names[::2], names[1::2]))
    assert set(told(*names, "misc/a.nii.gz", "misc/b.nii.gz")) == {*told(*names), ""}  # what is beside them changes nothing


@pytest.mark.parametrize(
    "layout",
    [
        "LA2018_Heart/{who}.npy",
        "T{visit}/{who:03}.nii.gz",  # a modality a folder
        "ses-{visit}/{who:03}.nii.gz",
        "site{visit}/x{who:03}/t1.nii.gz",
        "x{who}/lgemri.nrrd",  # one file of each: each is a subject of its own, as it was
        "site{who}/{who}{visit}.nii.gz",
    ],
)
def test_folders_of_collections_modalities_visits_and_sites_are_nobody(layout):
    names = {layout.format(who=who, visit=visit) for who in PEOPLE for visit in (1, 2)}
    assert set(subjects_by_names(names).values()) == {""}


@given(st.integers(1, 12), st.integers(1, 12))
def test_folders_are_people_where_there_are_more_of_them_than_names_in_them(folders, files):
    names = [f"x{folder}/{file}.npy" for folder in range(folders) for file in range(files)]
    assert len(folders_of_people(names)) == (folders if folders > files > 1 else 0)


def test_folders_of_splits_and_classes_are_nobody_and_a_table_wins():
    files = [f"{split}/{label}/{name}.png" for split in ("train", "test") for label in ("ill", "well") for name in "ab"]
    items = [Item(None, name, "", name.split("/")[1]) for name in files]
    assert [item.subject for item in with_subjects(items)] == [""] * len(items)
    items = [Item(None, f"ill/sub-03/{number}.png", "ill", "ill", "anna" if number else "") for number in (0, 1)]
    assert [item.subject for item in with_subjects(items)] == ["sub-03", "anna"]
    many = [Item(None, f"{'ab'[who % 2]}/X{who}/{visit}.png", "", "ab"[who % 2]) for who in PEOPLE for visit in (1, 2)]
    assert len({item.subject for item in with_subjects(many)} - {""}) == len(PEOPLE)
