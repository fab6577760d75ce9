"""finetune_classification.py: what it learns, keeps, writes, refuses, and goes on with."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from datasets import luna16
from datasets.classification import Shown
from datasets.classified import dealt, find_classified
from engine.config import parse
from engine.errors import UserError, speaking_to_people
from engine.weights import write_weights
from finetune_classification import ClassificationConfig, main
from models.classifier import load_classifier
from models.downstream import read_downstream
from models.pretrained import random_encoders
from tests import released_files
from tests.scripts.conftest import ROOT, events, run, write_labels

SMALL = "--arch resnet18 --d_model 32 --precision fp32 --workers 0 --image_size 24 --target_shape 8 24 24 --epochs 1".split()
SMALL += "--batch_size 4 --evaluate valid".split()
DRIVER = Path(__file__).with_name("disturbed.py")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tune(*words):
    return main(parse(ClassificationConfig, [*SMALL, *map(str, words)]))


def images(data):
    return "--image_path", data / "images"


def volumes(data):
    """Six to learn from and four to be judged on, by a table of their own."""
    rows = [f"{'ab'[n % 2]}/{n:02}.npy,{'valid' if n < 4 else 'train'},{n % 2}" for n in range(10)]
    (data / "volumes.csv").write_text("\n".join(["file,split,class", *rows]) + "\n", encoding="utf-8")
    return "--data_path", data / "volumes", "--labels", data / "volumes.csv"


def told(folder="runs/finetune_classification"):
    with open(Path(folder) / "cases.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def epochs(folder="runs/finetune_classification"):
    lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if line["kind"] == "epoch"]


def stage3(folder):
    """A weight file of stage 3, of an f_intra and an f_inter that were never trained, and its tensors."""
    encoders = random_encoders("resnet18", 32, 7, volumes=True)
    state = {f"slice_encoder.{k}": v for k, v in encoders.slice_encoder.state_dict().items()}
    state |= {f"masked.volume_encoder.{k}": v for k, v in encoders.volume_encoder.state_dict().items()}
    config = {"arch": "resnet18", "d_model": 32, "target_shape": [8, 24, 24], "sampling": "da020", "normalise": "none"}
    folder.mkdir(exist_ok=True)
    write_weights(folder / "swav3D.pth", state, {"stage": "joint", "method": "swav", "config": config})
    return state


def test_images_are_learned_and_the_file_predicts_what_was_judged(data, here, capsys):
    tune(*images(data), "--epochs", 2, "--score_every", 1)
    assert "train: 12 images; valid: " in capsys.readouterr().out
    results = json.loads(Path("runs/finetune_classification/results.json").read_text(encoding="utf-8"))
    assert list(results) == ["valid"] and all("valid_auc" in epoch for epoch in epochs())
    assert len(events("runs/finetune_classification").Images("views")) == 2
    weights = read_downstream("weights/classification.pth", "classification")
    assert weights.about["classes"] == ["0", "1"] and weights.about["inputs"] == {}
    model, shown = load_classifier(weights), Shown(**weights.about["shown"])
    valid = dealt(find_classified(data / "images", volumes=False)).valid
    with torch.no_grad():
        (batch,) = shown.judged_on(valid, 4, 0)
        wanted = model(*shown.plain(batch, torch.float32)).softmax(1)
    rows = told()
    assert [row["file"] for row in rows] == [item.name for item in valid]
    found = [[float(row[f"probability_{name}"]) for name in ("0", "1")] for row in rows]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert (here / "runs/finetune_classification/reliability.png").stat().st_size > 1000


@pytest.mark.parametrize("how", ["linear", "frozen"])
def test_heads_of_volumes_leave_every_pretrained_tensor_as_it_is(how, data, here):
    state = stage3(here / "weights")
    tune(*volumes(data), "--start_from", "swav3D.pth", "--tune", how, "--epochs", 2)
    weights = read_downstream("weights/classification.pth")
    for name, value in state.items():
        assert torch.equal(weights.state[name.removeprefix("masked.")], value), name
    assert weights.state["standardise.deviation"].std() > 0
    assert len(events("runs/finetune_classification").Images("views")) == 2
    assert weights.about["shown"]["normalise"] == "none" and list(weights.about["inputs"]) == ["weights/swav3D.pth"]


def test_full_fine_tuning_moves_pretrained_weights_by_their_share_of_the_rate(data, here):
    state = stage3(here / "weights")
    moved = {}
    for rate in (1.0, 0.01):
        words = ["--pretrained_rate", rate, "--dump_path", f"runs/{rate}", "--checkpoint_name", f"{rate}.pth", "--keep", "last"]
        tune(*volumes(data), "--start_from", "swav3D.pth", *words, "--warmup_epochs", 0)
        after = read_downstream(f"weights/{rate}.pth").state
        name = "slice_encoder.resnet.layer4.1.conv2.weight"
        moved[rate] = (after[name] - state[name]).abs().mean()
    assert moved[1.0] > 50 * moved[0.01] > 0


def test_volumes_from_stage_1_weights_and_images_from_stage_3_weights(data, here):
    plain = {k.removeprefix("slice_encoder.resnet."): v for k, v in stage3(here / "weights").items() if ".resnet." in k}
    torch.save(plain, here / "weights" / "resnet.pth")
    model = tune(*volumes(data), "--start_from", "resnet.pth", "--tune", "linear")
    assert model.volume_encoder is None and model.embedding_dim == 512
    other = ["--dump_path", "runs/b", "--checkpoint_name", "b.pth"]
    model = tune(*images(data), "--start_from", "swav3D.pth", "--tune", "linear", *other)
    assert model.volume_encoder is None and torch.equal(model.slice_encoder.resnet.conv1.weight.cpu(), plain["conv1.weight"])


def test_the_best_weights_are_kept_and_several_seeds_are_judged_together(data, here):
    tune(*images(data), "--seeds", 1, 2, "--epochs", 2, "--score_every", 1, "--tune", "linear", "--labelled", 4)
    assert {row["seed"] for row in told()} == {"1", "2"}
    for seed in (1, 2):
        about = read_downstream(f"weights/classification-{seed}.pth").about
        scores = [epoch["valid_auc"] for epoch in epochs(f"runs/finetune_classification/seed-{seed}")]
        assert scores[about["best_epoch"]] == max(scores)
        assert about["data"][0]["items"] == 8  # four subjects of each class


def test_a_finished_run_judges_again_and_trains_no_more(data, here):
    tune(*images(data), "--tune", "linear")
    first, written = told(), Path("weights/classification.pth").stat().st_mtime_ns
    shutil.move("runs/finetune_classification/cases.csv", "cases.csv")
    tune(*images(data), "--tune", "linear")
    assert told() == first and Path("weights/classification.pth").stat().st_mtime_ns == written
    tune(*images(data), "--tune", "linear", "--evaluate", "none")  # may change when nothing is trained


@pytest.mark.parametrize("what", ["images", pytest.param("volumes", marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_with_the_bits_of_one_that_was_not(what, data, here):
    words = [*SMALL, *(images(data) if what == "images" else volumes(data)), "--epochs", "2", "--score_every", "1"]
    for name in ("a", "b"):
        (here / name).mkdir()
    step = 4 if what == "images" else 1  # in the second epoch, and before the first one was scored
    assert run(DRIVER, "finetune_classification", here, "SIGTERM", 0, step, *words, cwd=here / "a").returncode == 75
    for name in ("a", "b"):
        done = run(DRIVER, "finetune_classification", here, "nothing", 0, 0, *words, cwd=here / name)
        assert done.returncode == 0, done.stderr[-3000:]
    one, other = (read_downstream(here / name / "weights/classification.pth").state for name in ("a", "b"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("what, how", [(images, "full"), (volumes, "full"), (images, "linear")])
def test_one_and_two_processes_learn_and_tell_the_same_in_float64(what, how, data, here):
    common = [
        *SMALL,
        *what(data),
        "--tune",
        how,
        "--precision",
        "fp64",
        "--epochs",
        "2",
        "--score_every",
        "1",
        "--keep",
        "last",
    ]
    means, figures = [], []
    for name, launcher, batch in [
        ("one", [], 4),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"], 2),
    ]:
        (here / name).mkdir()
        done = run(*launcher, ROOT / "finetune_classification.py", *common, "--batch_size", batch, cwd=here / name)
        assert done.returncode == 0, done.stderr[-3000:]
        folder = here / name / "runs/finetune_classification"
        (checkpoint,) = sorted((folder / "checkpoints").glob("step-*"))[-1:]
        state = torch.load(checkpoint / "optimizer.pt")["state"]
        means.append(torch.cat([state[i]["exp_avg"].flatten() for i in sorted(state)]))
        figures.append([epoch[what] for epoch in epochs(folder) for what in ("loss", "valid_auc")])
    assert (means[0] - means[1]).norm() / means[0].norm() < 1e-7
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)


def refused(capsys, *words) -> str:
    with pytest.raises(SystemExit) as stop, speaking_to_people():
        tune(*words)
    assert stop.value.code == 2 and not Path("runs").exists() and not Path("weights").exists()
    return capsys.readouterr().err


def test_what_cannot_be_learned_is_one_sentence(data, here, capsys):
    assert "name one folder, with --data_path or with --image_path" in refused(capsys)
    assert "name one folder" in refused(capsys, *images(data), "--data_path", data / "volumes")
    sentence = refused(capsys, *images(data), "--evaluate", "test")
    assert "No file is in the split test; deal the data into splits otherwise" in sentence
    assert "--labelled 50 asks for more than the 6 subjects of class '0' there are" in refused(
        capsys, *images(data), "--labelled", 50
    )
    assert "12 images make no batch of 40" in refused(capsys, *images(data), "--batch_size", 40)
    assert "no meaning with --normalise none" in refused(capsys, *images(data), "--normalise", "none", "--window", 0, 255)
    assert "--image_size is 0; it must be above 0" in refused(capsys, *images(data), "--image_size", 0)
    said = refused(capsys, *images(data), "--batch_size", 1, "--image_size", 32)
    assert "One picture of 32 x 32 is too little for batch norm" in said
    assert "--seeds 1 2 1 names a seed twice" in refused(capsys, *images(data), "--seeds", 1, 2, 1)
    shutil.copytree(data / "images", here / "one")
    write_labels(here / "one", [f"train/a/{n:02}.png,0,train" for n in (0, 2, 4)])
    assert "only files of class '0'" in refused(capsys, "--image_path", here / "one")
    (here / "one" / "train" / "a" / "00.png").unlink()
    assert "names 'train/a/00.png', which is no file below" in refused(capsys, "--image_path", here / "one")


def test_weights_bound_to_a_number_of_slices_ask_for_it(data, here):
    (here / "weights").mkdir()
    released_files.write(here / "weights")
    words = [*volumes(data), "--start_from", "swav3D.pth", "--tune", "linear"]
    with pytest.raises(UserError, match=r"bound to 16 slices; set --fit crop --target_shape 16"):
        tune(*words)
    model = tune(*words, "--target_shape", 16, 24, 24)
    assert model.volume_encoder.axis == "features"


def test_the_preset_learns_from_the_patches_of_nodule_candidates(here):
    rows = ["seriesuid,coordX,coordY,coordZ,class"]
    for fold in (0, 8, 9):
        image = sitk.GetImageFromArray(np.random.default_rng(fold).integers(-900, 300, (40, 70, 70)).astype(np.int16))
        image.SetOrigin((-35.0, -35.0, 0.0))
        (here / f"luna/subset{fold}").mkdir(parents=True)
        sitk.WriteImage(image, here / f"luna/subset{fold}/s{fold}.mhd")
        rows += [f"s{fold},{x},0,{z},{label}" for x, z, label in [(0, 20, 1), (5, 22, 0), (-9, 15, 0), (3, 18, 1)]]
    (here / "c.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    luna16.main(luna16.Candidates(volumes="luna", candidates="c.csv", output="training_data_luna16"))
    words = "--preset luna16 --arch resnet18 --d_model 32 --workers 0 --epochs 1 --batch_size 2 --precision fp32 --tune linear"
    main(parse(ClassificationConfig, words.split()))
    assert {(row["subject"], row["split"]) for row in told()} == {("s9", "test")} and len(told()) == 4
    shown = read_downstream("weights/classification.pth").about["shown"]
    assert tuple(shown["size"]) == (32, 64, 64)
    assert tuple(shown["window"]) == (-1000.0, 400.0)
