import csv
import os
import signal
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import check
from datasets.check import check_folder, quick_findings
from datasets.check_printing import print_report
from datasets.dealing import deal
from datasets.errors import DataError
from datasets.files import find_volumes
from datasets.inspection import full_facts
from tests.planted_faults import Planted, field, plant_pictures

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def by_kind(findings) -> dict[str, set[str]]:
    found = defaultdict(set)
    for finding in findings:
        found[finding.kind] |= set(finding.files)
    return found


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return Planted(tmp_path_factory.mktemp("planted") / "data")


@pytest.fixture(scope="module")
def report(planted, tmp_path_factory):
    return check_folder(planted.root, "full", tmp_path_factory.mktemp("out") / "new", 2)


def test_every_planted_fault_is_found_and_nothing_else(planted, report):
    assert len(report.seen) >= 500 and len(planted.faults) >= 12
    assert by_kind(report.findings) == planted.faults


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_faults_are_found_in_other_files_too(tmp_path, seed):
    planted = Planted(tmp_path / "data", seed)
    assert by_kind(check_folder(planted.root, "full", None, 2).findings) == planted.faults


def test_faults_of_pictures_are_found(tmp_path):
    faults = plant_pictures(tmp_path / "data")
    assert by_kind(check_folder(tmp_path / "data", "full", None, 1).findings) == faults


def test_headers_tell_what_headers_can(planted):
    found = by_kind(check_folder(planted.root, "quick", None, 1).findings)
    for kind in ("not a volume", "not real numbers", "empty", "axis order", "size outlier", "spacing outlier"):
        assert found[kind] == planted.faults[kind], kind
    for kind in ("missing", "subject in two splits", "not read"):
        assert found[kind] == planted.faults[kind], kind
    assert found["unreadable"] == planted.faults["unreadable"] - {"NIfTI/flipped.nii.gz"}
    assert set(found) <= set(planted.faults)


def test_training_scripts_hear_of_bad_headers(tmp_path):
    (tmp_path / "A").mkdir()
    np.save(tmp_path / "A/flat.npy", np.zeros((4, 4)))
    np.save(tmp_path / "A/good.npy", field(np.random.default_rng(0)))
    found = quick_findings(find_volumes(tmp_path))
    assert [(finding.kind, finding.files) for finding in found] == [("not a volume", ("A/flat.npy",))]


def test_the_checked_folder_stays_as_it_is(tmp_path):
    planted_pictures = tmp_path / "data"
    plant_pictures(planted_pictures)
    stamps = lambda: {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}  # noqa: E731
    before = stamps()
    check_folder(planted_pictures, "full", None, 1)
    assert stamps() == before
    with pytest.raises(DataError, match="lies in the folder that is checked"):
        check_folder(planted_pictures, "full", planted_pictures / "out", 1)
    assert stamps() == before


def test_tables_and_sheets_are_written(report, planted, tmp_path):
    check_folder(planted.root, "quick", tmp_path / "out", 1)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "findings.csv", "facts.csv", "CT.png", "MRI.png", "NIfTI.png", "Prepared.png",
    }  # fmt: skip
    with open(tmp_path / "out/findings.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"kind", "file", "sentence", "remedy"}
    assert {row["file"] for row in rows if row["kind"] == "not a volume"} == planted.faults["not a volume"]
    with open(tmp_path / "out/facts.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(report.seen)
    sheet = np.asarray(Image.open(tmp_path / "out/CT.png")).astype(int)
    assert (np.abs(sheet - (214, 40, 40)).sum(-1) == 0).sum() > 1000  # red frames


def test_report_is_printed_with_its_rate(report, capsys):
    print_report(report)
    text = capsys.readouterr().out
    assert "MB/s" in text and "files/s" in text
    assert "near-duplicate" in text and "CT (volumes)" in text and "int16" in text


def test_names_that_are_no_utf8_are_told(tmp_path, capsys):
    (tmp_path / "data/A").mkdir(parents=True)
    with open(os.fsencode(tmp_path / "data/A") + b"/gr\xf6\xdfe.npy", "wb") as file:
        file.write(b"x")
    print_report(check_folder(tmp_path / "data", "full", tmp_path / "out", 1))
    assert r"gr\udcf6\udcdfe.npy" in capsys.readouterr().out
    assert r"gr\udcf6\udcdfe.npy" in (tmp_path / "out/findings.csv").read_text(encoding="utf-8")
    assert (tmp_path / "out/A.png").is_file()


def killed(path: Path, volume: bool):
    if path.name == "deadly.npy":
        os.kill(os.getpid(), signal.SIGKILL)
    return full_facts(path, volume)


def test_a_process_that_dies_names_its_file_and_ends_nothing(tmp_path, monkeypatch):
    (tmp_path / "A").mkdir()
    for name in ("a", "deadly", "z"):
        np.save(tmp_path / f"A/{name}.npy", field(np.random.default_rng(len(name))))
    monkeypatch.setattr(check, "full_facts", killed)
    found = check_folder(tmp_path, "full", None, 1).findings
    assert [(finding.kind, finding.files) for finding in found] == [
        ("unreadable", ("A/deadly.npy",)),
        ("duplicate", ("A/a.npy", "A/z.npy")),
    ]
    assert "SIGKILL" in found[0].sentence


def halved(number: int) -> float:
    return 1 / number


def test_work_is_dealt_once_and_errors_are_told():
    answers = {number: (result, why) for number, result, why in deal(halved, [(n,) for n in range(20)], 3)}
    assert sorted(answers) == list(range(20))
    assert answers[0] == (None, "ZeroDivisionError: division by zero")
    assert all(answers[n] == (1 / n, "") for n in range(1, 20))


@pytest.mark.parametrize("root", ["training_data_3D", "training_data_2D"])
def test_samples_raise_no_false_alarm(root):
    assert check_folder(Path(__file__).parents[2] / root, "full", None, 2).findings == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not here")
def test_real_volumes_raise_no_false_alarm():
    assert check_folder(SHARED / "training_data_3D", "full", None, 2).findings == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not here")
def test_of_real_pictures_only_empty_ones_are_found():
    found = check_folder(SHARED / "training_data_2D", "full", None, 2).findings
    assert {finding.kind for finding in found} == {"constant", "mostly air", "intensity outlier"}
    for finding in found:
        pixels = np.asarray(Image.open(SHARED / "training_data_2D" / finding.files[0]))
        assert (pixels > pixels.min() + 15).mean() < 0.05  # what its README calls near-empty
