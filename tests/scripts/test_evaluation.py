import json

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config import parse
from engine.errors import UserError
from evaluate_embeddings import EvaluationConfig, as_trained, at_random, main
from models.errors import WeightsError
from models.pretrained import load_encoders, random_encoders
from tests import released_files as released


@pytest.fixture
def files(tmp_path):
    released.write(tmp_path)
    return tmp_path


def test_files_are_shown_as_in_the_training_of_the_weights_unless_a_flag_says_otherwise(files):
    published, _ = load_encoders(files / "swav3D.pth")
    plain, _ = load_encoders(files / "resnet_swav2D.pth")
    shown = as_trained(published, EvaluationConfig())
    assert (shown.fit, shown.normalise, shown.target_shape) == ("crop", "none", (16, 128, 128))
    shown = as_trained(plain, EvaluationConfig())
    assert (shown.fit, shown.normalise, shown.target_shape) == ("shrink", "robust", (64, 128, 128))
    assert as_trained(published, EvaluationConfig(normalise="robust", fit="shrink")).normalise == "robust"


def test_published_weights_are_scored_beside_others(files, data, tmp_path):
    names = ["swav3D.pth", "deepcluster3D.pth", "resnet_swav2D.pth", "mask_swav.pth"]
    words = [
        "--weights",
        *[str(files / name) for name in names],
        "--data_path",
        str(data / "volumes"),
        "--output",
        str(tmp_path),
    ]
    words += ["--target_shape", "16", "24", "24", "--workers", "0", "--image_path", str(data / "images"), "--precision", "fp32"]
    with pytest.raises(WeightsError, match="holds no ResNet"):
        main(parse(EvaluationConfig, words))
    main(parse(EvaluationConfig, [*words, "--resnet_pretrained", str(files / "resnet_swav2D.pth")]))
    rows = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert set(rows) == {"raw pixels", "random weights", *names}
    for figures in (rows[name][kind] for name in rows for kind in ("images", "volumes")):
        shares = ("knn", "linear", "map", "map_chance", "precision_at_1", "precision_at_5", "nmi")
        assert all(0 <= figures[name] <= 1 for name in shares) and -1 <= figures["ari"] <= 1
        assert figures["queries"] + figures["queries_left_out"] == figures["files"]
    sheets = {path.name for path in tmp_path.glob("neighbours_*.png")}
    assert sheets == {f"neighbours_{kind}_{n}.png" for kind in ("images", "volumes") for n in ["random_weights", *names]}
    assert (tmp_path / "embeddings.png").exists() and (tmp_path / "embeddings_tsne.png").exists()


def test_files_without_labels_in_no_collection_are_ranked_and_drawn_but_not_scored(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 20)).astype(np.uint8)).save(tmp_path / f"{number}.png")
    words = ["--image_path", str(tmp_path), "--output", str(tmp_path / "out"), "--arch", "resnet18", "--workers", "0"]
    main(parse(EvaluationConfig, [*words, "--target_shape", "8", "24", "24", "--queries", "2"]))
    rows = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert set(rows["raw pixels"]["images"]) == {"files", "rankme"}
    said = capsys.readouterr().out
    assert "there is RankMe alone" in said and "RankMe" in said and "kNN" not in said
    names = {"evaluation.json", "embeddings.png", "embeddings_tsne.png", "neighbours_images_random_weights.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names


def test_fine_tuned_files_among_others_are_left_out_and_named(files, data, tmp_path, capsys):
    torch.save({"format_version": 1, "stage": "segmentation"}, files / "fine.pth")
    words = ["--weights", str(files / "fine.pth"), str(files / "resnet_swav2D.pth"), "--image_path", str(data / "images")]
    words += ["--output", str(tmp_path / "out"), "--target_shape", "8", "24", "24", "--queries", "0", "--workers", "0"]
    main(parse(EvaluationConfig, words))
    assert f"left out, since they are fine-tuned: {files / 'fine.pth'}" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert set(rows) == {"raw pixels", "random weights", "resnet_swav2D.pth"}
    with pytest.raises(WeightsError, match=r"from finetune_segmentation\.py"):
        main(parse(EvaluationConfig, [*words[:2], *words[3:]]))


def test_every_network_has_random_weights_of_its_own_beside_it():
    trained = [random_encoders(arch, 16, seed=1) for arch in ("resnet18", "resnet34", "resnet18")]
    for of in (trained, trained[::-1]):
        baselines, _ = at_random(of, EvaluationConfig())
        assert [encoders.arch for encoders in baselines.values()] == [encoders.arch for encoders in of[:2]]
    assert next(iter(at_random([], EvaluationConfig(arch="resnet34"))[0].values())).arch == "resnet34"


def test_a_file_that_holds_no_weights_ends_it_before_anything_is_written(tmp_path, data):
    torch.save({"a": 1}, tmp_path / "x.pth")
    words = ["--weights", str(tmp_path / "x.pth"), "--data_path", str(data / "volumes"), "--output", str(tmp_path / "out")]
    with pytest.raises(WeightsError, match="holds no weights"):
        main(parse(EvaluationConfig, words))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="Nothing is to be embedded"):
        main(parse(EvaluationConfig, []))
