from pathlib import Path

import numpy as np
import pytest

from datasets.contents import Contents, case_of, contents_of
from datasets.errors import DataError
from datasets.files import Item
from datasets.findings import REMEDY, Seen, findings_of
from datasets.inspection import Facts
from datasets.outliers import axis_order, far_off, usual_sizes


def item(name: str, split: str = "", subject: str = "") -> Item:
    return Item(Path("root") / name, name, name.split("/")[0], "", subject, split)


def kinds(shapes=(), persons=None, splits=()) -> list[str]:
    seen = [Seen(item(f"c/{n}.npy"), Facts(1, shape, "uint8")) for n, shape in enumerate(shapes)]
    seen = [Seen(item(one.name, split), one.facts) for one, split in zip(seen, splits)] or seen
    return [finding.kind for finding in findings_of(seen, Contents(Path("root"), persons=persons or {}))]


def test_sound_collections_have_no_findings():
    assert kinds([(144, 144, 6 + n % 11) for n in range(40)]) == []
    assert kinds([(512, 512, 40)] * 30 + [(512, 512, 400)] * 10) == []  # two kinds of scan, neither an outlier
    assert kinds([(30, 40, 60)]) == []
    assert kinds() == []


def test_every_finding_has_its_files_in_the_sentence_and_a_remedy():
    seen = [Seen(item(f"c/{n}.npy"), Facts(1, (144, 144, 10), "uint8")) for n in range(20)]
    seen.append(Seen(item("c/odd.npy"), Facts(1, (10, 144, 144), "uint8")))
    seen.append(Seen(item("c/big.npy"), Facts(1, (900, 900, 10), "uint8")))
    found = findings_of(seen, Contents(Path("root"), unread=["c/x.dcm"]))
    assert [finding.kind for finding in found] == ["axis order", "size outlier", "not read"]
    for finding in found:
        assert all(name in finding.sentence for name in finding.files)
        assert finding.sentence.endswith(".") and finding.remedy.endswith(".")
    assert "moveaxis(volume, 0, -1)" in found[0].remedy
    assert all(remedy.endswith((".", "-1).")) for remedy in REMEDY.values())


ANISOTROPIC = (0.03, 0.03, 0.09)


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_that_are_not_last_are_suspected(axis):
    moved = lambda values: tuple(np.insert(values[:2], axis, values[2]))  # noqa: E731
    usual = usual_sizes(np.array([(90 + n, 120 - n, 55) for n in range(20)]))
    assert axis_order(moved((512, 512, 40)), None, None, None)
    assert axis_order(moved((144, 144, 90)), None, moved(ANISOTROPIC), None)
    assert axis_order(moved((95, 115, 55)), None, None, usual)
    assert axis_order(moved((256, 200, 190)), moved((0.9, 0.9, 3.0)), None, None)


def test_axes_without_evidence_are_not_suspected():
    assert not axis_order((51, 35, 35), None, (0.056, 0.068, 0.071), None)  # a box about the hippocampus
    assert not axis_order((123, 95, 93), None, (0.018, 0.025, 0.025), None)  # a brain of 1.5 mm voxels
    assert not axis_order((144, 144, 200), None, ANISOTROPIC, None)
    assert not axis_order((40, 128, 128), (3.0, 3.0, 8.0), None, None)  # the spacing says that it is so
    assert not axis_order((40, 128, 128), None, ANISOTROPIC, None)  # and so do the voxels
    assert not axis_order((10, 24, 30), None, None, None)


def test_far_is_far_and_rare():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 1000)
    assert not far_off(values, 0.0).any()
    values[[3, 5]] = 50, np.nan
    assert far_off(values, 0.0).nonzero()[0].tolist() == [3]
    assert not far_off(values, 60.0).any()
    assert not far_off(np.array([0.0] * 5 + [100]), 1.0).any()  # too few to tell
    assert not far_off(np.array([0.0] * 80 + [100] * 20), 1.0).any()  # a second kind


def test_a_file_without_split_is_trained_on():
    shapes, persons = [(9, 9, 9)] * 2, {"c/0.npy": ["A"], "c/1.npy": ["A"]}
    assert kinds(shapes, persons, ["", "test"]) == ["subject in two splits"]
    assert kinds(shapes, persons, ["", "train"]) == []
    assert kinds(shapes, {"c/0.npy": ["A"], "c/1.npy": ["B"]}, ["train", "test"]) == []


def test_names_of_slices_and_frames_tell_the_case():
    assert case_of(item("c/Brats18_2013_10_1_t1ce_frame_068.png")) == "c/Brats18_2013_10_1"
    assert case_of(item("c/1.3.6.1.4_frame_149.png")) == "c/1.3.6.1.4"
    assert case_of(item("c/patient004_frame01.npy")) == "c/patient004"
    assert case_of(item("c/0001.png")) == case_of(item("c/scan_01.nii.gz")) == ""


def test_contents_are_those_of_the_training_scripts_and_of_tables(tmp_path):
    for name in ("train/A/p1_07.png", "valid/A/p2_07.png", "A/v.npy", "A/data.raw", "A/.hidden.npy", "A/notes.txt", "A/x.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "A/manifest.csv").write_text("file,subject,split\nv.npy,s1,test\n", encoding="utf-8")
    (tmp_path / "A.manifest.csv").write_text("case,subject,split,pictures\np1,s1,train,1\n", encoding="utf-8")
    (tmp_path / "labels.csv").write_text("path,label,subject\nvalid/A/p2_07.png,,s9\n", encoding="utf-8")
    contents = contents_of(tmp_path)
    assert [(one.name, one.collection, one.split) for one in contents.items] == [
        ("A/v.npy", "A", "test"),
        ("train/A/p1_07.png", "A", "train"),
        ("valid/A/p2_07.png", "A", "valid"),
    ]
    assert contents.persons == {"A/v.npy": ["A/s1"], "train/A/p1_07.png": ["A/s1"], "valid/A/p2_07.png": ["s9"]}
    assert contents.unread == ["A/x.dcm"]
    assert contents.table_faults == []


def test_tables_that_would_be_misread_are_findings(tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "A/v.npy").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("path,label\nA/gone.npy,1\n", encoding="utf-8")
    (tmp_path / "A/manifest.csv").write_bytes("Größe".encode("latin-1"))
    found = findings_of([], contents_of(tmp_path))
    assert [finding.files for finding in found if finding.kind == "table"] == [("A/manifest.csv",), ("labels.csv",)]


def test_no_folder_and_no_data_are_one_sentence(tmp_path):
    with pytest.raises(DataError, match="gone is not a folder"):
        contents_of(tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(DataError, match="holds no volumes and no pictures"):
        contents_of(tmp_path)
