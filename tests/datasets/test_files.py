import hashlib
import os

import numpy as np
import pytest
from PIL import Image

from datasets.draws import keys, uniform
from datasets.errors import DataError
from datasets.files import find_images, find_pictures, find_volumes, hash_of, summary


def write_images(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / name)


def test_train_is_taken_when_there_is_one(tmp_path):
    write_images(tmp_path, ["train/b/1.png", "train/a/1.PNG", "valid/a/2.png", "test/a/3.png"])
    items = find_images(tmp_path)
    assert [item.name for item in items] == ["train/a/1.PNG", "train/b/1.png"]
    assert [item.collection for item in items] == ["a", "b"]
    assert [item.name for item in find_images(tmp_path, splits=("test",))] == ["test/a/3.png"]


def test_a_flat_folder_and_a_nested_one_are_found(tmp_path):
    write_images(tmp_path, ["x.png", "a/b/y.jpg"])
    assert [(i.name, i.collection) for i in find_images(tmp_path)] == [("a/b/y.jpg", "a"), ("x.png", "")]


def test_volumes_marked_test_are_not_seen_in_pretraining(tmp_path):
    for name in ("1.npy", "2.npy", "3.npy"):
        np.save(tmp_path / name, np.zeros((2, 2, 2)))
    (tmp_path / "labels.csv").write_text("path,label,subject,split\n1.npy,x,s1,train\n2.npy,y,s2,test\n", encoding="utf-8")
    assert [(i.name, i.label, i.subject) for i in find_volumes(tmp_path)] == [("1.npy", "x", "s1"), ("3.npy", "", "")]
    assert [i.name for i in find_volumes(tmp_path, splits=("test",))] == ["2.npy"]


def test_images_marked_test_in_the_table_are_not_seen_even_inside_train(tmp_path):
    write_images(tmp_path, ["train/1.png", "train/2.png"])
    (tmp_path / "labels.csv").write_text("path,label,split\ntrain/2.png,x,test\n", encoding="utf-8")
    assert [i.name for i in find_images(tmp_path)] == ["train/1.png"]


@pytest.mark.parametrize("find", [find_images, find_volumes])
def test_a_missing_and_an_empty_folder_are_named(tmp_path, find):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        find(tmp_path / "nowhere")
    with pytest.raises(DataError, match=str(tmp_path)):
        find(tmp_path)


def test_a_table_without_its_columns_is_refused(tmp_path):
    np.save(tmp_path / "1.npy", np.zeros((2, 2, 2)))
    (tmp_path / "labels.csv").write_text("file,class\n1.npy,x\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.csv needs the columns"):
        find_volumes(tmp_path)


def test_pictures_need_one_of_the_two_folders():
    with pytest.raises(DataError, match="--volume_path"):
        find_pictures("", "")


@pytest.mark.parametrize(
    "table, message",
    [
        ("path,label,split\n./1.npy,x,test\n", "no file below"),
        ("path,label\n1,x\n", "'1', which is no file"),
        ("path,label\na/../1.npy,x\n", "no file below"),
        ("path,label\n/etc/passwd,x\n", "'/etc/passwd', which is no file"),
        ("path,label,split\n1.npy,x,val\n", "the split 'val'; use train, valid, test"),
        ("path,name\n1.npy,x\n", "needs the columns"),
        (b"path,label\n1.npy,\xe4\n", "UTF-8"),
    ],
)
def test_a_table_of_labels_that_would_be_misread_is_refused(tmp_path, table, message):
    np.save(tmp_path / "1.npy", np.zeros((2, 2, 2)))
    (tmp_path / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(DataError, match=message):
        find_volumes(tmp_path)


def test_a_pipe_is_no_file_and_a_broken_link_is_one_that_will_be_named(tmp_path):
    write_images(tmp_path, ["1.png"])
    os.mkfifo(tmp_path / "2.png")
    (tmp_path / "3.png").symlink_to(tmp_path / "2.png")
    (tmp_path / "4.png").symlink_to(tmp_path / "nowhere.png")
    assert [item.name for item in find_images(tmp_path)] == ["1.png", "4.png"]


def test_a_name_that_is_no_utf8_is_counted_and_hashed_like_others(tmp_path):
    write_images(tmp_path, ["a/1.png"])
    os.rename(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path) + b"/m\xfcller")
    items = find_images(tmp_path)
    about = summary(items, "pictures", 1)
    assert about["names"] == hashlib.sha256(b"m\xfcller/1.png").hexdigest()
    assert about["collections"] == {"m\ufffdller": 1}  # which a model card in UTF-8 can hold
    assert 0 <= hash_of(items[0].name, "thinned") < 1
    assert hash_of("m\u00fcller", "split") == uniform(keys("split", "m\u00fcller"), 1)[0]
