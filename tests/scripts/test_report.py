"""The page about runs, from runs of the scripts themselves."""

import csv
import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.config import parse
from engine.errors import UserError, speaking_to_people
from report import ReportConfig, main
from tests.scripts.conftest import make_data, report_figures
from tests.scripts.six_scripts import script_flags

SCRIPTS = {"ssl_swav_2D": "2D", "mask_swav_3D": "mask", "ssl_swav_3D": "3D"}
SMALL = "--arch resnet18 --precision fp32 --epochs 3 --warmup_epochs 0 --workers 0 --no_check_data".split()
ALL_PARTS = "what verdict downstream evaluation clusters neighbours maps masked attention views curves configuration glossary"
NASTY = 'b<b onload="x">&'


def train(script, data, *more):
    module = importlib.import_module(script)
    config_class = next(v for k, v in vars(module).items() if k.endswith("Config") and v.__module__ == script)
    flags = [*script_flags("swav", SCRIPTS[script], data, "4"), *SMALL, *map(str, more)]
    config = parse(config_class, [*flags, "--pretrained_path", "runs/tiny/weights", "--dump_path", f"runs/tiny/{script}"])
    module.main(config, "swav") if SCRIPTS[script] == "mask" else module.main(config)


def rename(data: Path) -> None:
    """Calls the second collection something that HTML would take for a tag."""
    for folder in (data / "volumes", data / "images/train", data / "images/valid"):
        (folder / "b").rename(folder / NASTY)
    for table in (data / "volumes/labels.csv", data / "images/labels.csv"):
        head, *rows = csv.reader(table.read_text(encoding="utf-8").splitlines())
        with open(table, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([head, *([re.sub(r"(^|/)b/", rf"\1{NASTY}/", row[0]), *row[1:]] for row in rows)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder in which three stages were run as runs/tiny, with results of a fine-tuning and of an evaluation."""
    root = tmp_path_factory.mktemp("report")
    make_data(root / "data")
    rename(root / "data")
    here = Path.cwd()
    os.chdir(root)
    try:
        for script in SCRIPTS:
            train(script, Path("data"))
    finally:
        os.chdir(here)
    scores = {"value": 0.5, "interval": None, "deviation": None}
    judged = {"volumes": 3, "classes": {"a<b>": {"dice": scores}}, "mean": {"dice": scores}}
    (root / "runs/tiny/segmentation-random").mkdir()
    (root / "runs/tiny/segmentation-random/results.json").write_text(json.dumps({"test": judged}), encoding="utf-8")
    (root / "runs/tiny/evaluation").mkdir()
    evaluated = {"raw pixels": {"images": {"files": 16, "rankme": 3.0, "knn": 0.5}}}
    (root / "runs/tiny/evaluation/evaluation.json").write_text(json.dumps(evaluated), encoding="utf-8")
    return root


@pytest.fixture
def here(finished, tmp_path, monkeypatch) -> Path:
    """A copy that a test may change, from where the run was started."""
    shutil.copytree(finished, tmp_path / "copy", symlinks=True, copy_function=os.link)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def written(*words) -> str:
    main(parse(ReportConfig, [*map(str, words)]))
    runs = [word for word in words if str(word).startswith("runs")]
    return Path(runs[0] if len(runs) == 1 else "runs", "report.html").read_text(encoding="utf-8")


def lines_of(script):
    text = Path(f"runs/tiny/{script}/metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if line["kind"] == "epoch"]


def parts_of(page):
    return re.findall(r'<section id="(\w+)">', page)


def test_the_page_has_every_part_and_its_figures_are_those_of_the_log(here):
    page = written("runs/tiny")
    assert parts_of(page) == ALL_PARTS.split()
    assert "cannot be shown" not in page
    told = report_figures(page)
    for script in SCRIPTS:
        for at, line in (("first", lines_of(script)[0]), ("last", lines_of(script)[-1])):
            families = any(name.endswith("_ln_k") for name in line)
            for name, value in line.items():
                drawn = name.endswith(("_loss", "_rank", "_clusters_used")) or name.startswith(("r2_", "mask", "knn_"))
                if drawn or (name == "loss" and not families):
                    assert told[script, name, at] == value, name
            assert told[script, "data_wait", at] == pytest.approx(line["data_wait_seconds"] / line["seconds"])
            steps = lines_of(script)[0]["step"]
            assert told[script, "throughput", at] == pytest.approx(steps * 4 / line["seconds"])


def test_the_page_stands_alone_is_small_and_takes_names_for_text(here):
    page = written("runs/tiny")
    assert len(page.encode()) < 5e6
    assert "<script" not in page and "http" not in page.replace("http-equiv", "") and "url(" not in page
    assert all(address.startswith(("data:", "#")) for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert NASTY not in page and "b&lt;b onload=&quot;x&quot;&gt;&amp;" in page and "a&lt;b&gt;" in page


def test_several_runs_stand_side_by_side(here):
    shutil.copytree("runs/tiny", "runs/other")
    page = written("runs/tiny", "runs/other", "--images", 0, "--volumes", 0)
    assert "What tiny and other learned" in page and page.count('data-figure="ssl_swav_2D/images_loss/last"') == 2
    assert page.count('<polyline class="line c1"') == page.count('<polyline class="line c0"') > 10


def test_constants_of_several_downstream_runs_are_told_once_and_then_as_differences(here):
    for name, start in (("random", ""), ("swav3D", "swav3D.pth"), ("other", "swav3D.pth")):
        folder = Path(f"runs/tiny/segmentation-{name}")
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(f"start_from: '{start}'\nbatch_size: 77\n", encoding="utf-8")
        (folder / "run.json").write_text(json.dumps({"script": "finetune_segmentation", "id": name}), encoding="utf-8")
    page = written("runs/tiny", "--images", 0, "--volumes", 0)
    assert page.count("batch_size: 77") == 1 and "constants in which its 3 runs differ" in page


def test_one_scripts_run_has_a_page(here):
    page = written("runs/tiny/mask_swav_3D")
    assert {"views", "masked", "attention"} <= set(parts_of(page)) and not {"clusters", "evaluation"} & set(parts_of(page))


def test_a_run_without_its_data_and_weights_says_so_and_shows_the_rest(here):
    shutil.rmtree("data")
    page = written("runs/tiny")
    assert "data/images is not a folder" in page and {"curves", "verdict", "configuration"} <= set(parts_of(page))
    shutil.rmtree("runs/tiny/weights")
    assert "swav3D.pth is not there" in written("runs/tiny")


def test_pictures_of_other_files_than_those_learned_from_are_not_shown(here):
    extra = Path("data/images/train/a/new.png")
    shutil.copy(next(Path("data/images/train/a").iterdir()), extra)
    page = written("runs/tiny", "--volumes", 0)
    assert "the data have changed since the training (then 12 files, now 13)" in page


def test_weights_that_another_run_has_written_are_not_taken_for_these(here):
    about = json.loads(Path("runs/tiny/ssl_swav_3D/run.json").read_text(encoding="utf-8"))
    Path("runs/tiny/ssl_swav_3D/run.json").unlink()  # a link to the original
    Path("runs/tiny/ssl_swav_3D/run.json").write_text(json.dumps({**about, "id": "another"}), encoding="utf-8")
    assert "swav3D.pth was written by another run" in written("runs/tiny", "--images", 0)


@pytest.mark.parametrize(
    "words, sentence", [([], "No run is named"), (["data"], "data holds no run; give"), (["x"], "is not a folder")]
)
def test_what_is_no_run_is_one_sentence_and_code_2(here, capsys, words, sentence):
    with pytest.raises(SystemExit) as stopped, speaking_to_people():
        main(parse(ReportConfig, words))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and sentence in said and said.count("\n") == 1


def test_a_place_that_cannot_be_written_is_a_sentence(here):
    with pytest.raises(UserError, match="cannot be written"):
        written("runs/tiny/mask_swav_3D", "--output", "/dev/null/x.html", "--volumes", 0)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs a chromium")
@pytest.mark.parametrize("width", [1200, pytest.param(400, marks=pytest.mark.slow)])
def test_a_browser_shows_the_page_without_a_complaint(here, width):
    written("runs/tiny")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={here}/browser",
        "--enable-logging=stderr",
    ]
    flags += [f"--window-size={width},3000", f"--screenshot={here}/page.png"]
    done = subprocess.run(
        ["chromium", *flags, f"file://{here}/runs/tiny/report.html"], capture_output=True, encoding="utf-8", timeout=300
    )
    assert Path("page.png").stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr
