"""What the pipeline asks of its stages, without running them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import engine.stages
from datasets.errors import DataError
from engine.errors import Preempted, UserError
from engine.stages import last_epoch, run_stage
from run_pipeline import (
    PipelineConfig,
    labelled_files,
    read_constants,
    refuse_unfit,
    segmentations,
    show,
    show_segmentations,
    stages,
)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The commands that would have been run; each stage writes its file unless its script is in `asked.stopped`."""
    monkeypatch.chdir(tmp_path)
    asked = SimpleNamespace(words=[], stopped=set())

    def pretend(words):
        asked.words.append(words)
        script = Path(words[1]).name
        if script not in asked.stopped:
            folder = Path(words[-1]).parent
            (folder / "metrics.jsonl").write_text(json.dumps({"kind": "epoch", "loss": 1.0}) + "\n", encoding="utf-8")
            Path("runs/p/weights").mkdir(exist_ok=True)
            Path("runs/p/weights/resnet_swav2D.pth").write_bytes(b"weights")
        return int(script in asked.stopped)

    monkeypatch.setattr(engine.stages, "run_child", pretend)
    return asked


def run_first_stage(data, constants="epochs: 1\n"):
    Path("s1.yaml").write_text(constants, encoding="utf-8")
    config = PipelineConfig(name="p", image_path="images", stage1="s1.yaml")
    return run_stage(stages(config, "swav")[0], 1, data, last_epoch)


def starts_over(folder="runs/p/ssl_swav_2D"):
    return "overwrite: true" in Path(folder, "constants.yaml").read_text(encoding="utf-8")


def test_a_stage_is_skipped_until_its_constants_or_its_output_change(asked):
    run_first_stage("data")
    run_first_stage("data")
    assert len(asked.words) == 1
    run_first_stage("other data")
    assert len(asked.words) == 2 and starts_over()
    Path("runs/p/weights/resnet_swav2D.pth").write_bytes(b"w")
    run_first_stage("other data")
    assert len(asked.words) == 3 and not starts_over()  # its checkpoints write the file again


def test_a_stage_that_is_done_anew_says_what_has_changed(asked, capsys):
    run_first_stage("data")
    assert "anew" not in capsys.readouterr().out
    run_first_stage("other data", "epochs: 9\n")
    assert (
        "runs/p/ssl_swav_2D: done anew, in place of what is there, since this has changed: data, epochs"
        in capsys.readouterr().out
    )


def test_a_stage_that_was_asked_to_stop_and_has_saved_ends_the_pipeline_so(asked):
    asked.stopped.add("ssl_swav_2D.py")
    Path("runs/p/ssl_swav_2D").mkdir(parents=True)
    Path("runs/p/ssl_swav_2D/PREEMPTED").touch()
    with pytest.raises(Preempted, match="the same command goes on"):
        run_first_stage("data")


def test_a_stage_stopped_after_its_constants_changed_is_gone_on_with(asked):
    run_first_stage("data")
    asked.stopped.add("ssl_swav_2D.py")
    for over in (True, False, False):
        with pytest.raises(UserError, match="ended with code 1"):
            run_first_stage("data", "epochs: 9\n")
        assert starts_over() == over


def test_a_preset_goes_to_every_stage():
    for stage in stages(PipelineConfig(name="p", data_path="v", preset="released"), "swav"):
        assert stage.constants["preset"] == "released"


def starts_of(config, *methods):
    """name: (the weight files that are read, --start_from, --context, --tune) of every segmentation."""
    found = segmentations(config, [stages(config, method) for method in methods])
    assert all(stage.writes.name == stage.constants["checkpoint_name"] for stage in found)
    asked = ("start_from", "context", "tune")
    return {s.writes.stem: ([path.name for path in s.reads], *(s.constants[name] for name in asked)) for s in found}


def test_segmentations_start_from_nothing_from_stage_1_and_from_the_last_stage_without_context_and_with_it():
    config = PipelineConfig(name="p", data_path="v", image_path="i", labelled_path="l")
    assert starts_of(config, "swav") == {
        "segmentation-random": ([], "", False, "full"),
        "segmentation-resnet_swav2D": (["resnet_swav2D.pth"], "resnet_swav2D.pth", False, "full"),
        "segmentation-swav3D": (["swav3D.pth"], "swav3D.pth", False, "full"),
        "segmentation-swav3D-context": (["swav3D.pth"], "swav3D.pth", True, "full"),
        "segmentation-random-linear": ([], "", False, "linear"),
        "segmentation-resnet_swav2D-linear": (["resnet_swav2D.pth"], "resnet_swav2D.pth", False, "linear"),
        "segmentation-swav3D-linear": (["swav3D.pth"], "swav3D.pth", False, "linear"),
    }
    assert len(starts_of(config, "deepcluster", "swav")) == 12


def test_where_stage_1_is_the_last_one_segmentations_start_from_it_once_and_without_context():
    found = starts_of(PipelineConfig(name="p", image_path="i", labelled_path="l"), "swav")
    assert list(found) == [
        *("segmentation-random", "segmentation-resnet_swav2D", "segmentation-random-linear"),
        "segmentation-resnet_swav2D-linear",
    ]
    assert not any(context for _, _, context, _ in found.values())


def test_an_f_inter_along_features_takes_no_part(tmp_path):
    config = PipelineConfig(name="p", data_path="v", labelled_path="l", preset="released")
    assert not any(context for _, _, context, _ in starts_of(config, "swav").values())
    (tmp_path / "s3.yaml").write_text("attention: slices\n", encoding="utf-8")
    config.stage3 = str(tmp_path / "s3.yaml")
    assert starts_of(config, "swav")["segmentation-swav3D-context"][2]


@pytest.mark.parametrize(
    "text, message",
    [
        ("epocs: 1\n", "--epocs of finetune_segmentation.py is not a flag of this script; did you mean --epochs?"),
        ("epochs: many\n", "--epochs"),
        ("test_cases: [nothing-is-called-so]\n", "nothing-is-called-so"),
        ("classes: ['1']\n", "3 x 3 x 3"),
    ],
)
def test_what_a_segmentation_would_refuse_is_said_before_the_first_stage(tmp_path, text, message):
    for number, split in enumerate(("train", "train", "valid", "test")):
        (tmp_path / split).mkdir(exist_ok=True)
        shape = (3, 3, 3) if split == "test" else (8, 8, 4)
        np.savez(tmp_path / split / f"{number}.npz", image=np.zeros((8, 8, 4)), label=np.ones(shape, np.uint8))
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    config = PipelineConfig(data_path="v", labelled_path=str(tmp_path), segmentation=str(tmp_path / "s.yaml"))
    pretraining = stages(config, "swav")
    with pytest.raises((UserError, DataError), match=message):
        refuse_unfit(pretraining, segmentations(config, [pretraining]))


def test_a_constant_that_stage_3_does_not_have_is_said_before_the_first_stage(tmp_path):
    (tmp_path / "s.yaml").write_text("epsilom: 0.1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"--epsilom of ssl_swav_3D\.py is not a flag"):
        refuse_unfit(stages(PipelineConfig(data_path="v", stage3=str(tmp_path / "s.yaml")), "swav"), [])
    refuse_unfit(stages(PipelineConfig(data_path="v"), "swav") + stages(PipelineConfig(data_path="v"), "deepcluster"), [])


def test_a_table_of_cases_outside_the_folder_is_learned_from_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("cases").mkdir()
    for name in ("cases/a.npz", "table.csv"):
        Path(name).write_bytes(b"x")
    Path("s.yaml").write_text("manifest: table.csv\n", encoding="utf-8")
    config = PipelineConfig(labelled_path="cases", segmentation="s.yaml")
    assert labelled_files(config) == [Path("cases/a.npz"), Path("table.csv")]
    with pytest.raises(UserError, match="--labelled_path nowhere holds no files"):
        labelled_files(PipelineConfig(labelled_path="nowhere"))


@pytest.mark.parametrize("classes, shown", [(3, True), (11, False)])
def test_classes_have_columns_where_they_are_few(capsys, classes, shown):
    stage, *_ = segmentations(PipelineConfig(image_path="i"), [stages(PipelineConfig(image_path="i"), "swav")])
    figures = {"value": 0.514, "interval": [0.41, 0.62], "deviation": None}
    of_class = {f"organ{number}": {"dice": {**figures, "value": None}} for number in range(classes)}
    show_segmentations([stage], [{"volumes": 7, "seconds": 3.2, "mean": {"dice": figures}, "classes": of_class}])
    said = capsys.readouterr().out
    assert "7 test volumes" in said and "0.51 (0.41–0.62)" in said and "random" in said
    assert ("organ2" in said) == shown


@pytest.mark.parametrize("known", [{}, {"knn": 0.5, "knn_interval": [0.4, 0.6]}])
def test_the_table_of_stages_has_a_column_of_neighbours_where_there_are_labels(capsys, known):
    figures = {name: {"images": {"rankme": 3.0, **known}} for name in ("raw pixels", "random weights", "w.pth")}
    show([{"script": "s.py", "seconds": 1.0, "loss": 0.1}], figures)
    said = capsys.readouterr().out
    assert "s.py" in said and ("kNN images" in said) == bool(known)


@pytest.mark.parametrize(
    "text, message",
    [("checkpoint_name: x.pth\n", "sets checkpoint_name"), ("- 3\n", "no `name: value`"), ("a: [\n", "as YAML")],
)
def test_a_wrong_file_of_stage_constants_is_named(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_constants(str(tmp_path / "s.yaml"))


def test_a_file_for_segmentations_sets_no_start(tmp_path):
    (tmp_path / "s.yaml").write_text("tune: frozen\n", encoding="utf-8")
    config = PipelineConfig(image_path="i", segmentation=str(tmp_path / "s.yaml"))
    with pytest.raises(UserError, match="sets tune, which"):
        segmentations(config, [stages(config, "swav")])
