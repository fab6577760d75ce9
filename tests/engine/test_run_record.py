import json
from pathlib import Path

import pytest
import yaml

from engine.errors import UserError
from engine.run_record import read_run, read_stage


def leave(folder: Path, script="ssl_swav_2D", **config):
    """What a run of a script leaves, without weights."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"epochs": 2, "batch_size": 4, **config}), encoding="utf-8")
    about = {"script": script, "id": "1", "global_batch": {"batch_size": 8}}
    (folder / "run.json").write_text(json.dumps(about), encoding="utf-8")
    lines = [{"kind": "left_out", "step": 0, "a/b.png": "is empty"}, {"kind": "step", "step": 1, "loss": 2.0}]
    lines += [{"kind": "epoch", "step": 2 * (n + 1), "epoch": n, "loss": 1.0, "seconds": 3.0} for n in range(2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_the_stages_of_a_pipeline_come_in_their_order(tmp_path):
    for script in ("ssl_swav_3D", "mask_swav_3D", "ssl_swav_2D", "ssl_deepcluster_2D"):
        leave(tmp_path / "r" / script, script)
    (tmp_path / "r/weights").mkdir()
    found = read_run(tmp_path / "r")
    assert [stage.script for stage in found.stages] == ["ssl_deepcluster_2D", "ssl_swav_2D", "mask_swav_3D", "ssl_swav_3D"]
    first = found.stages[1]
    assert (first.stage, first.method, first.seconds, first.batch(), first.steps_per_epoch) == (1, "SwAV", 6.0, 8, 2)
    assert first.left_out == {"a/b.png": "is empty"} and not first.unfinished


def test_one_scripts_folder_is_a_run_too_and_its_last_line_may_be_half_written(tmp_path):
    leave(tmp_path / "mine")
    with open(tmp_path / "mine/metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "epo')
    assert len(read_run(tmp_path / "mine").stages[0].epochs) == 2


def test_paths_are_those_from_where_the_run_was_started(tmp_path, monkeypatch):
    leave(tmp_path / "work/runs/mine", dump_path="runs/mine", pretrained_path="weights", checkpoint_name="w.pth")
    monkeypatch.chdir(tmp_path)
    stage = read_stage(Path("work/runs/mine"))
    assert stage.path_of("data") == tmp_path / "work/data" and stage.weights == tmp_path / "work/weights/w.pth"
    assert stage.path_of("/data") == Path("/data")
    (tmp_path / "work/runs/mine").rename(tmp_path / "moved")
    assert read_stage(Path("moved")).path_of("data") == Path("data")


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_what_is_no_run_is_refused_in_a_sentence(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=rf"{name} (is not a folder|holds no run); give"):
        read_run(tmp_path / name)


def test_a_damaged_file_of_a_run_is_named(tmp_path):
    leave(tmp_path / "mine")
    (tmp_path / "mine/run.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine/run\.json cannot be read"):
        read_run(tmp_path / "mine")


@pytest.mark.parametrize("results", [{"test": {"seeds": [1, 2]}}, {"runs": 2, "seeds": [1, 2], "test": {"map": {}}}])
def test_several_seeds_are_a_run_that_started_from_what_each_did(tmp_path, results):
    for seed in (1, 2, 3):
        start = "b.pth" if seed == 3 else "a.pth"
        leave(tmp_path / f"ms/seed-{seed}", "finetune_segmentation", seed=seed, start_from=start)
    (tmp_path / "ms/results.json").write_text(json.dumps(results), encoding="utf-8")
    (found,) = read_run(tmp_path / "ms").downstream
    assert (found.name, found.script, found.results) == ("ms", "finetune_segmentation", results)
    assert found.config["start_from"] == "a.pth" and "seed" not in found.config
    (tmp_path / "ms/results.json").write_text('{"test": {"seeds": [1, 3]}}', encoding="utf-8")
    assert "start_from" not in read_stage(tmp_path / "ms").config


def test_a_single_run_is_what_its_own_configuration_says(tmp_path):
    leave(tmp_path / "mine", "finetune_segmentation", start_from="a.pth")
    leave(tmp_path / "mine/seed-1", "finetune_segmentation", start_from="b.pth")
    (tmp_path / "mine/results.json").write_text('{"test": {"seeds": [31]}}', encoding="utf-8")
    assert read_stage(tmp_path / "mine").config["start_from"] == "a.pth"
