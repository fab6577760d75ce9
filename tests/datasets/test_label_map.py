import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.cases import Case
from datasets.errors import DataError
from datasets.label_map import LabelMap


def cases_of(folder, *labels, splits=()) -> list[Case]:
    cases = []
    for number, values in enumerate(labels):
        path = folder / f"{number}.npz"
        label = np.zeros((3, 2, 2), np.int16)
        label.flat[: len(values)] = values
        np.savez(path, image=np.arange(12).reshape(3, 2, 2), label=label)
        cases.append(Case(path, path.name, path, split=splits[number] if splits else ""))
    return cases


@given(st.lists(st.integers(-1000, 40000).filter(bool), min_size=1, max_size=20, unique=True), st.data())
def test_values_become_classes_in_their_order_and_go_back(values, data):
    label_map = LabelMap.from_words([str(value) for value in values])
    stored = np.array(data.draw(st.lists(st.sampled_from([0, *values]), min_size=6, max_size=6))).reshape(1, 2, 3)
    classes = label_map.classes_of(stored, "a")
    assert classes.dtype == np.uint8 and classes.tolist() == np.vectorize([0, *values].index)(stored).tolist()
    assert np.array_equal(label_map.stored_of(classes), stored)


@pytest.mark.parametrize("dtype", [bool, np.uint8, ">i2", np.int32, np.uint16, np.int64])
def test_any_integer_type_is_mapped(dtype):
    stored = np.array([[[0, 1, 1]]], dtype)
    assert LabelMap.from_words(("1+2+850",)).classes_of(stored, "a").tolist() == [[[0, 1, 1]]]


def test_several_values_make_one_class_which_is_written_as_the_first():
    label_map = LabelMap.from_words(("1+2+4", "7"), ("whole tumour", "other"))
    classes = label_map.classes_of(np.array([[[0, 1, 2, 4, 7]]]), "a")
    assert classes.tolist() == [[[0, 1, 1, 1, 2]]] and label_map.count == 3
    assert label_map.stored_of(classes).tolist() == [[[0, 1, 1, 1, 7]]]
    assert LabelMap.from_words(label_map.words, label_map.names) == label_map


def test_values_of_no_class_are_refused_with_file_and_values_or_made_background():
    stored = np.array([[[0, 1, 2, 9, -5, 70000]]])
    with pytest.raises(DataError, match=r"case\.nii\.gz has unmapped label values: -5, 2, 9, 70000; .*\(1 are named\)"):
        LabelMap.from_words(("1",)).classes_of(stored, "case.nii.gz")
    lenient = LabelMap.from_words(("1",), others_are_background=True)
    assert lenient.classes_of(stored, "case.nii.gz").tolist() == [[[0, 1, 0, 0, 0, 0]]]
    with pytest.raises(DataError, match=r"1, 2, 3, 4, 5, 6, 7, 8 and 12 more"):
        LabelMap.from_words(("99",)).classes_of(np.arange(21).reshape(1, 3, 7), "a")


@pytest.mark.parametrize(
    "words, names, said",
    [
        (("a",), (), "'a' names no class"),
        (("1", "0"), (), "'0' names no class"),
        (("1+",), (), r"'1\+' names no class"),
        (("99999999999",), (), "'99999999999' names no class"),
        (("1", "2+1"), (), r"value 1 is given twice in 1 2\+1"),
        (("1", "2"), ("heart",), "1 names are given for 2 classes"),
        ((), (), "0 classes are given"),
        (tuple(map(str, range(1, 256))), (), "255 classes are given"),
    ],
)
def test_words_that_name_no_classes_are_refused(words, names, said):
    with pytest.raises(DataError, match=said):
        LabelMap.from_words(words, names)


def test_every_value_of_the_training_labels_is_found(tmp_path):
    cases = cases_of(tmp_path, [850, 205], [205, 3], [7], splits=("train", "train", "test"))
    assert LabelMap.found_in(cases).words == ("3", "205", "850")
    assert LabelMap.found_in(cases_of(tmp_path, [1], [4])).names == ("1", "4")
    named = LabelMap.found_in(cases_of(tmp_path, [4], [1]), ("liver", "spleen"), others_are_background=True)
    assert named.names == ("liver", "spleen") and named.classes_of(np.array([[[0, 1, 4, 7]]]), "a").tolist() == [[[0, 1, 2, 0]]]


def test_negative_values_are_classes_by_name_alone(tmp_path):
    cases = cases_of(tmp_path, [0, 1], [1, -1])
    with pytest.raises(DataError, match=r"1\.npz holds the negative label value -1; name the values that are classes with"):
        LabelMap.found_in(cases)
    assert LabelMap.found_in(cases, others_are_background=True).words == ("1",)
    assert LabelMap.from_words(("1", "-1")).values == ((1,), (-1,))


def test_labels_without_any_foreground_are_refused(tmp_path):
    cases = cases_of(tmp_path, [0], [0], [1], splits=("train", "train", "valid"))
    with pytest.raises(DataError, match=r"None of 2 training labels \(the first is .*0\.npz\) has any foreground: no value is"):
        LabelMap.found_in(cases)
    label_map = LabelMap.from_words(("1",))
    with pytest.raises(DataError, match=r"any foreground: the values 1 do not occur"):
        label_map.refuse_absent(cases)
    label_map.refuse_absent(cases_of(tmp_path, [0], [1]))


def test_a_scan_in_place_of_labels_is_told(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((10, 10, 10)), label=np.arange(1000).reshape(10, 10, 10))
    with pytest.raises(DataError, match=r"a\.npz holds more than 254 values"):
        LabelMap.found_in([Case(tmp_path / "a.npz", "a.npz", tmp_path / "a.npz")])
