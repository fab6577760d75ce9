"""What the pipeline asks of its stages, without running them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import run_pipeline
from engine.errors import UserError
from run_pipeline import PipelineConfig, read_constants, run_stage, stages


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The commands that would have been run; each stage writes its file unless its script is in `asked.stopped`."""
    monkeypatch.chdir(tmp_path)
    asked = SimpleNamespace(words=[], stopped=set())

    def pretend(words):
        asked.words.append(words)
        script = Path(words[1]).name
        if script == "evaluate_embeddings.py":
            Path("runs/p/evaluation").mkdir(parents=True, exist_ok=True)
            Path("runs/p/evaluation/evaluation.json").write_text("{}", encoding="utf-8")
        elif script not in asked.stopped:
            folder = Path(words[-1]).parent
            (folder / "metrics.jsonl").write_text(json.dumps({"kind": "epoch", "loss": 1.0}) + "\n", encoding="utf-8")
            Path("runs/p/weights").mkdir(exist_ok=True)
            Path("runs/p/weights/resnet_swav2D.pth").write_bytes(b"weights")
        return SimpleNamespace(returncode=int(script in asked.stopped))

    monkeypatch.setattr(run_pipeline.subprocess, "run", pretend)
    return asked


def first_stage(constants="epochs: 1\n"):
    Path("s1.yaml").write_text(constants, encoding="utf-8")
    config = PipelineConfig(name="p", image_path="images", stage1="s1.yaml")
    return config, stages(config, "swav")[0]


def starts_over(folder="runs/p/ssl_swav_2D"):
    return "overwrite: true" in Path(folder, "constants.yaml").read_text(encoding="utf-8")


def test_a_stage_is_skipped_until_its_constants_or_its_output_change(asked):
    run_stage(*first_stage(), "data")
    run_stage(*first_stage(), "data")
    assert len(asked.words) == 1
    run_stage(*first_stage(), "other data")
    assert len(asked.words) == 2 and starts_over()
    Path("runs/p/weights/resnet_swav2D.pth").write_bytes(b"w")
    run_stage(*first_stage(), "other data")
    assert len(asked.words) == 3 and not starts_over()  # its checkpoints write the file again


def test_a_stage_stopped_after_its_constants_changed_is_gone_on_with(asked):
    run_stage(*first_stage(), "data")
    asked.stopped.add("ssl_swav_2D.py")
    for over in (True, False, False):
        with pytest.raises(UserError, match="ended with code 1"):
            run_stage(*first_stage("epochs: 9\n"), "data")
        assert starts_over() == over


def test_a_preset_goes_to_every_stage(asked):
    for stage in stages(PipelineConfig(name="p", data_path="v", preset="released"), "swav"):
        assert stage["constants"]["preset"] == "released"


@pytest.mark.parametrize(
    "text, message",
    [("checkpoint_name: x.pth\n", "sets checkpoint_name"), ("- 3\n", "no `name: value`"), ("a: [\n", "as YAML")],
)
def test_a_wrong_file_of_stage_constants_is_named(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_constants(str(tmp_path / "s.yaml"))
