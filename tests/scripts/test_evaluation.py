import json

import pytest
import torch

from engine.config import parse
from engine.errors import UserError
from evaluate_embeddings import EvaluationConfig, as_trained, main
from models.errors import WeightsError
from models.pretrained import load_encoders
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
    assert all(0 <= rows[name]["volumes"]["knn"] <= 1 for name in names)


def test_a_file_that_holds_no_weights_ends_it_before_anything_is_written(tmp_path, data):
    torch.save({"a": 1}, tmp_path / "x.pth")
    words = ["--weights", str(tmp_path / "x.pth"), "--data_path", str(data / "volumes"), "--output", str(tmp_path / "out")]
    with pytest.raises(WeightsError, match="holds no weights"):
        main(parse(EvaluationConfig, words))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="Nothing is to be embedded"):
        main(parse(EvaluationConfig, []))
