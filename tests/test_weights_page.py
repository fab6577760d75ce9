"""The examples of docs/weights.md, taken from the page and run as they stand there."""

import importlib
import re
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from engine.config import parse
from engine.embedding_files import read_pieces
from hubconf import load_model
from tests.small_weights import write_joint

PAGE = (Path(__file__).parents[1] / "docs/weights.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUICK = {"embed": ["--workers", "0", "--precision", "fp32"]}  # the page leaves out what only hurries a test


def python_blocks(word: str) -> list[str]:
    return [code for language, code in BLOCKS if language == "python" and word in code]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The folder that the page takes for granted, after all of its commands."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "weights").mkdir()
    write_joint(folder / "weights/swav3D.pth", arch="resnet50", d_model=640)
    rng = np.random.default_rng(0)
    for number in range(9):
        path = folder / f"SCANS/ct/case_{number:02d}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(rng.integers(0, 99, (24, 26, 6)).astype(np.int16), np.diag([1, 1, 3, 1])), path)
    (folder / "scan.nii.gz").write_bytes((folder / "SCANS/ct/case_07.nii.gz").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in (line for language, code in BLOCKS if language == "bash" for line in code.splitlines()):
            python, script, *words = shlex.split(line)
            module = importlib.import_module(script.removesuffix(".py"))
            assert python == "python"
            module.main(parse(_config_of(module), [*words, *QUICK.get(module.__name__, [])]))
    return folder


def _config_of(module):
    return next(v for k, v in vars(module).items() if k.endswith("Config") and v.__module__ == module.__name__)


@pytest.fixture
def run(here, monkeypatch):
    """Runs the page's only block with a word in it → its names."""
    monkeypatch.chdir(here)

    def run(word: str) -> dict:
        (code,) = python_blocks(word)
        names: dict = {}
        exec(compile(code, f"docs/weights.md, {word}", "exec"), names)
        return names

    return run


@pytest.fixture(scope="module")
def expected(here):
    """Pictures (2, 3, 64, 64) float64, and the features that our own network gives them."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    encoder = load_model(str(here / "weights/swav3D.pth")).slice_encoder.double()
    with torch.no_grad():
        return images, encoder.pooled(images)


def test_every_example_is_run_here():
    words = ["read_volume", "pq.read_table", "argsort", "torchvision.models", "import timm", "import segmentation", "monai.n"]
    tested = [code for word in words for code in python_blocks(word)]
    assert sorted(tested) == sorted(code for language, code in BLOCKS if language == "python")


def test_the_volume_embedding_of_a_nifti_file_is_its_row_in_the_embeddings_of_its_folder(here, run):
    names = run("read_volume")
    assert names["embedding"].shape == (1, 640) and names["slices"].shape == (6, 640)
    assert names["embedding"].norm().item() == pytest.approx(1, abs=1e-5)
    for file in ("embeddings.parquet", "embeddings.npy"):
        rows, embeddings = next(read_pieces(here / file))
        assert [row["file"] for row in rows] == [f"ct/case_{number:02d}.nii.gz" for number in range(9)]
        np.testing.assert_allclose(embeddings[7], names["embedding"][0].numpy(), atol=1e-5)


def test_embeddings_are_read_as_the_page_says(here, run):
    np.testing.assert_array_equal(run("pq.read_table")["embeddings"], np.load(here / "embeddings.npy"))


def test_similar_rows_are_found_as_the_page_says(here, run):
    nearest = run("argsort")["nearest"]
    rows = np.load(here / "embeddings.npy")
    assert len(nearest) == 5 and 7 not in nearest
    cosines = rows @ rows[7]
    assert cosines[nearest].min() >= np.delete(cosines, [*nearest, 7]).max() - 1e-6


@torch.no_grad()
@pytest.mark.parametrize("word", ["torchvision.models", "import timm"])
def test_a_resnet_of_another_library_gives_our_features(run, expected, word):
    images, features = expected
    torch.testing.assert_close(run(word)["net"].double().eval()(images), features)


@torch.no_grad()
@pytest.mark.parametrize("word", ["import segmentation", pytest.param("monai.n", marks=pytest.mark.slow)])
def test_the_encoder_of_a_u_net_gives_our_features_and_the_net_runs(run, expected, word):
    images, features = expected
    net = run(word)["net"].double().eval()
    torch.testing.assert_close(net.encoder(images)[-1].mean((2, 3)), features)
    assert net(images).shape == (2, 4, 64, 64)
