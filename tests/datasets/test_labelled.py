from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from datasets.files import Item, spread, thinned
from datasets.labelled import held_out, labelled_volumes


def volumes(root, rows, header="path,label,subject,split"):
    for row in rows:
        np.save(root / row.split(",")[0], np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def labelled(root, most=100):
    words = {"target_shape": (3, 4, 4), "fit": "shrink", "batch_size": 2, "workers": 0, "seed": 0}
    return labelled_volumes(SimpleNamespace(data_path=str(root), probed_files=most, **words), lambda find, *args: find(*args))


def test_the_valid_files_are_asked_the_train_files_answer_and_test_files_are_not_seen(tmp_path):
    volumes(tmp_path, ["1.npy,x,s1,train", "2.npy,y,s2,valid", "3.npy,x,s3,test", "4.npy,,s4,valid", "5.npy,y,s5,train"])
    found = labelled(tmp_path)
    assert [item.name for item in found.loader.dataset.items] == ["1.npy", "2.npy", "5.npy"]
    assert found.held_out.tolist() == [False, True, False] and found.labels.tolist() == ["x", "y", "y"]
    assert [i for batch in found.loader for i in batch["index"].tolist()] == [0, 1, 2]


def test_without_splits_about_a_quarter_of_the_subjects_is_held_out_whole():
    items = [Item(None, f"{i}.npy", "", "x", f"s{i // 3}") for i in range(1200)]
    asked = held_out(items)
    assert asked.mean() == pytest.approx(0.25, abs=0.06)
    assert (asked.reshape(400, 3).min(1) == asked.reshape(400, 3).max(1)).all()
    assert np.array_equal(held_out(items[600:]), asked[600:])


def test_more_files_than_wanted_are_thinned_out_and_stay_in_order(tmp_path):
    volumes(tmp_path, [f"{i:02d}.npy,{'xy'[i % 2]}" for i in range(40)], header="path,label")
    names = [item.name for item in labelled(tmp_path, most=12).loader.dataset.items]
    assert len(names) == 12 and names == sorted(names) and names != [f"{i:02d}.npy" for i in range(12)]


def test_thinning_out_leaves_a_quarter_held_out_and_each_collection_its_share():
    items = [Item(None, f"{'ab'[i // 2000]}/{i}.npy", "ab"[i // 2000], "x") for i in range(4000)]
    chosen = thinned(items, 400)
    assert held_out(chosen).mean() == pytest.approx(0.25, abs=0.08)
    assert np.mean([item.collection == "a" for item in chosen]) == pytest.approx(0.5, abs=0.1)


def test_few_files_are_spread_over_collections_and_within_them_over_labels():
    many = [("a", "x", 900), ("a", "y", 90), ("a", "z", 2), ("b", "x", 5), ("c", "", 1)]
    items = [Item(None, f"{c}/{label}{i}.npy", c, label) for c, label, count in many for i in range(count)]
    chosen = spread(items, 9)
    assert Counter(item.collection for item in chosen) == {"a": 4, "b": 4, "c": 1}
    assert Counter(item.label for item in chosen if item.collection == "a").keys() == {"x", "y", "z"}
    assert spread(items[::-1], 9) == chosen and set(chosen) < set(spread(items, 20)) and len(spread(items, 2000)) == 998


def test_a_train_folder_without_valid_files_is_split_by_subjects():
    assert 0 < held_out([Item(None, f"train/{i}.png", "", "x", split="train") for i in range(100)]).mean() < 0.5


@pytest.mark.parametrize("rows, most", [(["1.npy,,s,train"], 9), (["1.npy,x,s,valid"], 0)])
def test_where_nothing_can_be_asked_or_answer_there_is_nothing(tmp_path, rows, most):
    volumes(tmp_path, rows)
    assert labelled(tmp_path, most) is None
