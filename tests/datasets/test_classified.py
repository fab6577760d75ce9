import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.classified import dealt, drawn_in_each_class, find_classified, missing_classes
from datasets.errors import DataError
from datasets.files import Item, subject_of


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / name)


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def known(items):
    return [(item.name, item.label, item.subject, item.split) for item in items]


def item(name, label, split="", subject=""):
    return Item(None, name, "", label, subject, split)


def test_labels_come_from_the_table_of_the_folder(tmp_path):
    put(tmp_path, "a/1.png", "a/2.png", "3.png", "unlabelled.png")
    write(tmp_path / "labels.csv", "path,label,subject,split", "a/2.png,ill,p,test", "a/1.png,well,q,train", "3.png,,q,train")
    assert known(find_classified(tmp_path, False)) == [("a/1.png", "well", "q", "train"), ("a/2.png", "ill", "p", "test")]


def test_without_a_table_the_folder_is_the_class(tmp_path):
    put(tmp_path, "train/ill/1.png", "train/well/x/2.png", "valid/ill/3.png", "other/4.png")
    found = find_classified(tmp_path, False)
    assert known(found) == [
        ("train/ill/1.png", "ill", "", "train"),
        ("train/well/x/2.png", "well", "", "train"),
        ("valid/ill/3.png", "ill", "", "valid"),
    ]
    for number in range(2):
        (tmp_path / "volumes" / "ab"[number]).mkdir(parents=True)
        np.save(tmp_path / "volumes" / "ab"[number] / "v.npy", np.zeros((2, 2, 2)))
    assert known(find_classified(tmp_path / "volumes", True)) == [("a/v.npy", "a", "", ""), ("b/v.npy", "b", "", "")]


def test_a_named_table_may_call_its_columns_otherwise_and_leave_out_the_folder_of_the_split(tmp_path):
    put(tmp_path / "data", "train/1.png", "test/2.png", "3.png")
    table = tmp_path / "mine.csv"
    write(table, "file,split,class,label,who", "1.png,train,ill,1,p", "2.png,test,well,0,q")
    found = find_classified(tmp_path / "data", False, str(table))
    assert known(found) == [("test/2.png", "0", "", "test"), ("train/1.png", "1", "", "train")]
    found = find_classified(tmp_path / "data", False, str(table), ("label=class", "subject=who"))
    assert known(found) == [("test/2.png", "well", "q", "test"), ("train/1.png", "ill", "p", "train")]


@pytest.mark.parametrize(
    "lines, words, sentence",
    [
        (["path,label", "b.png,1"], (), r"labels\.csv names 'b\.png', which is no file below"),
        (["path,label", "../out.png,1"], (), r"names '\.\./out\.png', which is no file below"),
        (["path,label,split", "a.png,1,dev"], (), "gives a.png the split 'dev'; use train, valid, test"),
        (["path,label", "a.png,1", "a.png,0"], (), "names a.png more than once"),
        (["path,finding", "a.png,1"], (), "has no column 'label', but path, finding; say which one is meant: --columns label="),
        (["path,label", "a.png,1"], ("label=dx",), "has no column 'dx', but path, label"),
        (["path,label", "a.png,1"], ("diagnosis=dx",), "--columns has 'diagnosis=dx'; write name=column"),
        (["path,label", "a.png,"], (), "labels no file"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(tmp_path, lines, words, sentence):
    put(tmp_path / "data", "a.png")
    put(tmp_path, "out.png")
    write(tmp_path / "data" / "labels.csv", *lines)
    with pytest.raises(DataError, match=sentence):
        find_classified(tmp_path / "data", False, columns=words)


def test_folders_and_tables_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder; give one with labelled images"):
        find_classified(tmp_path / "nowhere", False)
    put(tmp_path, "a.png", "ill/b.png")
    with pytest.raises(DataError, match=r"a\.png lies in no folder of a class"):
        find_classified(tmp_path, False)
    with pytest.raises(DataError, match=r"x\.csv cannot be read \(No such file or directory\); name a CSV table with --labels"):
        find_classified(tmp_path, False, str(tmp_path / "x.csv"))
    (tmp_path / "labels.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="cannot be read as a CSV table in UTF-8"):
        find_classified(tmp_path, False)


@pytest.mark.parametrize(
    "layout", ["sub-{who:02}/sub-{who:02}_ses-{visit}.png", "x{who}/{visit}.png", "x{who}_visit{visit}.png"]
)
def test_files_of_a_person_go_into_one_split(tmp_path, layout):
    names = [f"{'ab'[who % 2]}/" + layout.format(who=who, visit=visit) for who in range(20) for visit in (1, 2)]
    put(tmp_path, *names)
    parts = dealt(find_classified(tmp_path, False))
    split_of = {i.name: name for name in PARTS for i in getattr(parts, name)}
    assert all(split_of[one] == split_of[other] for one, other in zip(names[::2], names[1::2]))
    assert subjects_in(parts, "a") == {"train": 7, "valid": 1, "test": 2}


PARTS = ("train", "valid", "test")


def subjects_in(parts, label: str) -> dict[str, int]:
    """How many subjects of a class each split has."""
    return {name: len({subject_of(i) for i in getattr(parts, name) if i.label == label}) for name in PARTS}


@settings(max_examples=30, deadline=None)  # a hash of every name takes its time
@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(1, 3), st.randoms(use_true_random=False))
def test_splits_that_nobody_says_have_their_share_of_each_class_and_no_subject_twice(sizes, frames, order):
    every = [
        item(f"{label}{n}_{frame}.png", label, subject=f"{label}{n}")
        for label, size in zip("abcde", sizes)
        for n in range(size)
        for frame in range(frames)
    ]
    parts = dealt(every)
    owners = {name: {subject_of(i) for i in getattr(parts, name)} for name in PARTS}
    assert sum(map(len, owners.values())) == len(set().union(*owners.values())) == sum(sizes)
    for label, size in zip("abcde", sizes):
        found = subjects_in(parts, label)
        assert found["train"] >= 1 and (size < 2 or found["test"] >= 1) and (size < 3 or found["valid"] >= 1)
        assert abs(found["test"] - 0.2 * size) < 1 and abs(found["valid"] - 0.1 * size) < 1
    mixed = order.sample(every, len(every))
    assert {(i.name, i.split) for name in PARTS for i in getattr(dealt(mixed), name)} == {
        (i.name, i.split) for name in PARTS for i in getattr(parts, name)
    }


def test_a_subject_with_files_of_several_classes_counts_for_the_rarest():
    every = [item(f"{n}.png", "well", subject=f"s{n}") for n in range(50)]
    every += [item(f"{n}_ill.png", "ill", subject=f"s{n}") for n in range(0, 50, 5)]
    parts = dealt(every)
    assert subjects_in(parts, "ill") == {"train": 7, "valid": 1, "test": 2}
    assert subjects_in(parts, "well") == {"train": 35, "valid": 5, "test": 10}


def test_where_only_valid_is_not_said_it_takes_a_tenth_of_each_class_of_train():
    every = [item(f"{n}", "ab"[n % 10 == 0], "train") for n in range(100)] + [item("t", "a", "test"), item("u", "b", "test")]
    parts = dealt(every)
    assert subjects_in(parts, "a")["valid"] == 9 and subjects_in(parts, "b")["valid"] == 1 and len(parts.test) == 2


def test_a_class_that_a_split_has_not_is_named():
    assert missing_classes(dealt([item(f"{n}", "ab"[n == 0], subject=f"s{n}") for n in range(20)])) == [
        f"the split {split} has no file of class 'b': nothing is known of it there." for split in ("valid", "test")
    ]
    assert missing_classes(dealt([item("1", "a", "train"), item("2", "b", "train")])) == []


def test_classes_are_sorted_and_targets_are_their_places():
    data = dealt([item("1", "b", "train"), item("2", "a", "train"), item("3", "b", "test")])
    assert data.classes == ("a", "b") and data.targets(data.train) == [1, 0] and data.targets(data.test) == [1]


@pytest.mark.parametrize(
    "items, sentence",
    [
        ([item("1", "a", "train"), item("2", "b", "")], "2 has no split, though 1 other files have one"),
        (
            [item("1", "a", "train", "p"), item("2", "b", "test", "p")],
            "Subject p is in two splits, train and test .2.",
        ),
        ([item("1", "a", "train"), item("2", "a", "train")], "has only files of class 'a'; files of two classes"),
        ([item("1", "a", "test"), item("2", "b", "test")], "has no labelled file"),
        (
            [item("1", "a", "train"), item("2", "b", "train"), item("3", "c", "test")],
            r"3 \(split test\) is of class 'c', which no file of the training split is",
        ),
    ],
)
def test_splits_that_nothing_can_be_learned_from_are_refused(items, sentence):
    with pytest.raises(DataError, match=sentence):
        dealt(items)


MANY = [item(f"{n:02}", "abc"[n % 3], "train", f"s{n // 2}") for n in range(30)]


@given(st.integers(0, 50), st.integers(1, 4))
def test_subjects_are_drawn_for_each_class_and_more_of_them_hold_the_fewer(seed, count):
    few, more = (drawn_in_each_class(MANY, many, seed) for many in (count, count + 1))
    assert {i.name for i in few} < {i.name for i in more} and few == sorted(few, key=lambda i: i.name)
    for label in "abc":
        assert len({subject_of(i) for i in few if i.label == label}) == count


@settings(deadline=None)
@given(st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=3, max_size=12), st.integers(0, 20))
def test_one_subject_of_each_class_is_drawn_however_rare_a_class_is(labels_of, seed):
    """Subjects may have files of several classes."""
    every = [item(f"{n}{label}", label, "train", f"s{n}") for n, labels in enumerate(labels_of) for label in sorted(labels)]
    drawn = drawn_in_each_class(every, 1, seed)
    assert sorted(i.label for i in drawn) == sorted({i.label for i in every})


def test_other_seeds_draw_other_subjects_and_0_all():
    drawn = {tuple(i.name for i in drawn_in_each_class(MANY, 2, seed)) for seed in range(10)}
    assert len(drawn) > 5 and drawn_in_each_class(MANY, 0, 1) == MANY
    with pytest.raises(DataError, match=r"--labelled 11 asks for more than the 10 subjects of class 'a' there are"):
        drawn_in_each_class(MANY, 11, 1)
