import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.ops import box_iou

from datasets.boxes import find_boxed, findings_of, missing_findings, unboxed
from datasets.errors import DataError
from datasets.readers import merged, overlap


def pictures(root, *names, size=(40, 60)):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.arange(size[0] * size[1]).reshape(size).astype(np.uint8)).save(root / name)


def table(root, *lines, name="boxes.csv", columns="file,x,y,w,h,finding,split,subject"):
    (root / name).write_text("\n".join([columns, *lines]) + "\n", encoding="utf-8")
    return [name]


def refused(root, tables, **how):
    with pytest.raises(DataError) as told:
        find_boxed(str(root), tables, **how)
    return str(told.value)


@pytest.fixture
def root(tmp_path):
    pictures(tmp_path, "train/a.png", "train/b.png", "valid/c.png", "test/d.png", "test/e.png")
    return tmp_path


ROWS = ("a.png,1,2,10,20,mass,,", "b.png,5,5,5,5,node,,", "c.png,0,0,60,40,mass,,", "d.png,1,1,2,2,node,,")


def test_splits_are_those_of_the_folders_and_pictures_that_no_row_names_are_left_out(root):
    train, valid, test = find_boxed(str(root), table(root, *ROWS))
    assert [p.name for p in train] == ["train/a.png", "train/b.png"] and train[0].boxes == ((1, 2, 11, 22),)
    assert [p.name for p in valid] == ["valid/c.png"] and [p.name for p in test] == ["test/d.png"]
    assert train[0].size == (40, 60) and findings_of(train, valid, test) == ["mass", "node"]


def test_pictures_that_no_row_names_are_negatives_on_request(root):
    *_, test = find_boxed(str(root), table(root, *ROWS), unnamed="negative")
    assert [(p.name, p.boxes) for p in test] == [("test/d.png", ((1, 1, 3, 3),)), ("test/e.png", ())]


def test_a_row_without_numbers_says_that_nothing_is_there(root):
    *_, test = find_boxed(str(root), table(root, *ROWS, "e.png,,,,,No finding,,"))
    assert [p.boxes for p in test] == [((1, 1, 3, 3),), ()]


def test_boxes_of_other_findings_than_the_wanted_are_passed_over_and_their_pictures_stay(root):
    train, *_ = find_boxed(str(root), table(root, *ROWS), findings=["mass"])
    assert [len(p.boxes) for p in train] == [1, 0]
    assert "no box; there are mass, node" in refused(root, ["boxes.csv"], findings=["heart"])


def test_a_finding_that_only_other_splits_than_the_training_split_have_is_refused(root):
    tables = table(root, *ROWS, "e.png,1,1,5,5,heart,,")
    assert "test/e.png (split test) has a box of 'heart', of which the training split has none" in refused(root, tables)
    splits = find_boxed(str(root), tables, findings=["mass", "node"])
    assert findings_of(*splits) == ["mass", "node"] and missing_findings(*splits) == []
    few = find_boxed(str(root), tables, findings=["mass", "node"], labelled=1)
    assert missing_findings(*few) == [
        f"no picture that is learned from has a box of {({'mass', 'node'} - set(few[0][0].findings)).pop()!r}, "
        "which counts as not found."
    ]


def test_coco_means_the_same_as_the_table(root):
    of = {"train/a.png": 7, "b.png": 3, "c.png": 4, "test/d.png": 9, "e.png": 10}
    content = {
        "images": [{"id": number, "file_name": name, "width": 60, "height": 40} for name, number in of.items()],
        "categories": [{"id": 5, "name": "node"}, {"id": 2, "name": "mass"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 3, "category_id": 5, "bbox": [5, 5, 5, 5]},
            {"id": 3, "image_id": 4, "category_id": 2, "bbox": [0, 0, 60, 40], "iscrowd": 0},
            {"id": 4, "image_id": 9, "category_id": 5, "bbox": [1, 1, 2, 2]},
        ],
    }
    (root / "all.json").write_text(json.dumps(content), encoding="utf-8")
    assert find_boxed(str(root), ["all.json"]) == find_boxed(str(root), table(root, *ROWS, "e.png,,,,,,,"))
    for number, (change, said) in enumerate(
        [
            ({"category_id": 99}, "is of category 99, which the file does not list"),
            ({"image_id": 99}, "is of picture 99, which"),
            ({"iscrowd": 1}, "is of a crowd"),
            ({"bbox": [1, 2]}, "is not laid out as COCO's"),
        ]
    ):
        bad = {**content, "annotations": [{**content["annotations"][0], **change}]}
        (root / f"{number}.json").write_text(json.dumps(bad), encoding="utf-8")
        assert said in refused(root, [f"{number}.json"])


def test_boxes_of_several_radiologists_are_merged_and_one_who_saw_nothing_outvotes_nobody(root):
    columns = "image_id,class_name,rad_id,x_min,y_min,x_max,y_max"
    drawn = (
        "a,mass,R1,10,10,30,30",
        "a,mass,R2,12,10,32,30",
        "a,node,R3,10,10,30,30",
        "b,No finding,R1,,,,",
        "b,mass,R2,1,1,9,9",
    )
    rest = ("c,mass,R1,0,0,9,9", "d,No finding,R1,,,,", "d,No finding,R2,,,,")
    train, _, test = find_boxed(str(root), table(root, *drawn, *rest, columns=columns))
    assert dict(zip(train[0].findings, train[0].boxes)) == {"mass": (11, 10, 31, 30), "node": (10, 10, 30, 30)}
    assert train[1].boxes == ((1, 1, 9, 9),) and test[0].boxes == ()


def test_a_smaller_copy_has_smaller_boxes_and_one_of_another_shape_is_refused(root):
    columns = "image_id,class_name,x_min,y_min,x_max,y_max,width,height"
    train, *_ = find_boxed(str(root), table(root, "a,mass,10,20,110,220,600,400", columns=columns))
    assert train[0].boxes == ((1, 2, 11, 22),)
    assert "another shape" in refused(root, table(root, "a,mass,10,20,110,220,400,600", columns=columns))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.png,50,2,20,20,mass,,", r"line 2, has a box from (50, 2) to (70, 22), which reaches out of a.png (60 x 40 pixels)"),
        ("a.png,1,2,0,20,mass,,", "a box without an area"),
        ("a.png,1,2,nan,20,mass,,", "without four numbers"),
        ("a.png,1,2,wide,20,mass,,", "'wide' where a number of pixels is needed"),
        ("a.png,1,2,3,4,,,", "a box without a finding"),
        ("z.png,1,2,3,4,mass,,", "names 'z.png', which is no picture below"),
        ("a.png,1,2,3,4,mass,learn,", "the split 'learn'; use train, valid, test"),
        ("a.png,,,,,No finding,,", "holds no box"),
        ("d.png,1,2,3,4,mass,,", "no box on any of 0 picture(s) of split train"),
    ],
)
def test_a_bad_row_is_one_sentence(root, line, said):
    assert said in refused(root, table(root, line))


def test_a_box_that_stands_out_by_rounding_is_cut(root):
    train, *_ = find_boxed(str(root), table(root, "a.png,-0.4,2,60.9,20,mass,,"))
    assert train[0].boxes == ((0, 2, 60, 22),)


def test_tables_and_names_that_cannot_be_understood_are_refused(root):
    assert "is no table of boxes" in refused(root, table(root, "1,2", columns="a,b"))
    assert "is missing" in refused(root, ["none.csv"])
    (root / "bad.json").write_text("{", encoding="utf-8")
    assert "cannot be read as CSV or JSON" in refused(root, ["bad.json"])
    pictures(root, "test/a.png")
    assert "may be test/a.png or train/a.png" in refused(root, table(root, ROWS[0]))
    train, *_ = find_boxed(str(root), table(root, "a.png,1,2,10,20,mass,train,"))
    assert train[0].name == "train/a.png"
    assert "No pictures are given" in refused("", ["boxes.csv"])


def test_a_picture_without_a_readable_header_is_listed_where_such_files_are_left_out_later(root):
    (root / "train/a.png").write_bytes(b"no picture")
    tables = table(root, *ROWS, "b.png,5,5,9,9,mass,,")
    assert "train/a.png cannot be read as a picture" in refused(root, tables)
    train, *_ = find_boxed(str(root), tables, skip=True)
    assert [(p.name, len(p.boxes), bool(p.fault())) for p in train] == [("train/a.png", 0, True), ("train/b.png", 2, False)]
    with pytest.raises(DataError, match=r"train/a\.png cannot be read as a picture"):
        unboxed(root)
    assert len(unboxed(root, skip=True)) == 5


def test_a_subject_in_two_splits_is_refused(root):
    rows = ["a.png,1,2,10,20,mass,,ann", "d.png,1,1,2,2,node,,ann"]
    said = refused(root, table(root, *rows))
    assert "Subject ann is in two splits, test and train (train/a.png)" in said


def test_labels_csv_gives_subject_and_split_where_the_table_has_none(root):
    (root / "labels.csv").write_text("path,label,subject,split\ntrain/b.png,x,ann,test\n", encoding="utf-8")
    *_, test = find_boxed(str(root), table(root, *ROWS, "a.png,5,5,5,5,node,,"))
    assert [(p.name, p.subject) for p in test] == [("test/d.png", ""), ("train/b.png", "ann")]


def test_subjects_are_dealt_where_there_are_no_splits(tmp_path):
    names = [f"{number:03d}.png" for number in range(40)]
    pictures(tmp_path, *names)
    splits = find_boxed(str(tmp_path), table(tmp_path, *(f"{name},1,1,9,9,mass,,{int(name[:3]) // 2}" for name in names)))
    subjects = [{p.subject for p in split} for split in splits]
    assert all(subjects) and all(not a & b for a, b in itertools.combinations(subjects, 2))


def test_a_subject_that_no_table_tells_is_told_by_names(tmp_path):
    names = [f"sub-{who:02}_{view}.png" for who in range(20) for view in ("pa", "lateral")]
    pictures(tmp_path, *names)
    splits = find_boxed(str(tmp_path), table(tmp_path, *(f"{name},1,1,9,9,mass,," for name in names)))
    subjects = [{p.subject for p in split} for split in splits]
    assert set().union(*subjects) == {f"sub-{who:02}" for who in range(20)}
    assert all(subjects) and all(not a & b for a, b in itertools.combinations(subjects, 2))


def test_fewer_drawn_subjects_are_among_more(tmp_path):
    names = [f"train/{number:02d}.png" for number in range(48)]
    pictures(tmp_path, *names)
    tables = table(tmp_path, *(f"{name},1,1,9,9,mass,train,{number // 2}" for number, name in enumerate(names)))
    drawn = {count: find_boxed(str(tmp_path), tables, labelled=count, seed=3)[0] for count in (1, 2, 4)}
    everybody = {p.subject for p in find_boxed(str(tmp_path), tables)[0]}
    for count, of in drawn.items():
        assert len({p.subject for p in of}) == count and {p.subject for p in of} <= everybody
    assert set(drawn[1]) <= set(drawn[2]) <= set(drawn[4])
    assert "--labelled 24 asks for more than the" in refused(tmp_path, tables, labelled=24)


coordinates = st.integers(0, 20).flatmap(lambda low: st.tuples(st.just(low), st.integers(low + 1, 30)))
boxes = st.tuples(coordinates, coordinates).map(lambda xy: (xy[0][0], xy[1][0], xy[0][1], xy[1][1]))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["mass", "node"]), boxes), max_size=8), st.randoms())
def test_merging_keeps_every_finding_and_depends_on_no_order(drawn, random):
    shuffled = list(drawn)
    random.shuffle(shuffled)
    truth = merged(drawn)
    assert merged(shuffled) == truth
    assert {finding for finding, _ in truth} == {finding for _, finding, _ in drawn}
    for finding in {finding for _, finding, _ in drawn}:
        of_one = [sum(r == reader and f == finding for r, f, _ in drawn) for reader in "abc"]
        # at most one box of a reader in a mean
        assert max(of_one) <= sum(f == finding for f, _ in truth) <= sum(of_one)


@settings(deadline=None)
@given(boxes, boxes)
def test_overlap_is_that_of_torchvision(a, b):
    there = box_iou(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64))
    assert overlap(a, b) == pytest.approx(there.item(), abs=1e-12)
