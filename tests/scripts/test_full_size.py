"""Whole CT volumes at the default size, ResNet-50, through all stages: what it takes, and what the network sees."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from datasets.files import find_volumes
from datasets.views import plain_view
from datasets.volumes import VolumeDataset, collate_volumes
from tests.scripts.conftest import ROOT, environment

pytestmark = pytest.mark.slow
SHAPE = (64, 128, 128)
AND_TELL_THE_PEAK = (
    "import atexit, resource, runpy, sys; sys.argv = sys.argv[1:];"
    "atexit.register(lambda: print('peak kB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss));"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def peak_gigabytes(cwd, script, *words) -> float:
    command = [sys.executable, "-c", AND_TELL_THE_PEAK, ROOT / script, "--workers", 0, "--epochs", 1, *words]
    environ = {**environment(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(os.cpu_count())}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environ, capture_output=True, encoding="utf-8", timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    peak = int(done.stdout.split("peak kB")[1]) / 2**20
    print(f"{script}: {peak:.2f} GB")
    return peak


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Two 512 × 512 × 300 int16 volumes: air, a body that fills the field of view, bright bars along each of its six faces."""
    root = tmp_path_factory.mktemp("scans")
    (root / "volumes/ct").mkdir(parents=True)
    for number in range(2):
        volume = np.full((512, 512, 300), 40 + 10 * number, np.int16)
        volume += np.random.default_rng(number).integers(-20, 20, (512, 512, 1), np.int16)
        for axis, width in enumerate((16, 16, 15)):
            faces = np.moveaxis(volume, axis, 0)
            faces[:width, ...], faces[-width:, ...] = 1000, -1000
        np.save(root / f"volumes/ct/{number}.npy", volume)
    return root


def test_the_network_sees_the_whole_of_a_large_scan(scans):
    dataset = VolumeDataset(find_volumes(scans / "volumes"), SHAPE, seed=0, centred=True)
    pixels, real = plain_view(collate_volumes([dataset[0, 0]]), "robust", torch.float32)
    assert real.all() and pixels.shape == (1, *SHAPE)
    inside = pixels[0, 8:-8, 8:-8, 8:-8].median()
    slices, rows, columns = pixels[0], pixels[0].movedim(1, 0), pixels[0].movedim(2, 0)
    for planes in (slices, rows, columns):
        middle = planes[:, 16:48, 16:48] if planes.shape[0] == 128 else planes[:, 48:80, 48:80]
        assert middle[0].median() > inside + 1 and middle[-1].median() < inside - 1


@pytest.mark.parametrize("method", ["swav", "deepcluster"])
def test_all_stages_run_on_large_scans_at_full_size_within_8_gigabytes(scans, tmp_path, method):
    volumes = ["--data_path", scans / "volumes", "--batch_size", 1]
    crops = ["--data_path", "", "--volume_path", scans / "volumes", "--batch_size", 32, "--nmb_crops", 2, "--size_crops", 32]
    assert peak_gigabytes(tmp_path, f"ssl_{method}_2D.py", *crops) < 8
    assert peak_gigabytes(tmp_path, f"mask_{method}_3D.py", *volumes) < 8
    assert peak_gigabytes(tmp_path, f"ssl_{method}_3D.py", *volumes) < 8
    again = ["--recompute", "--dump_path", "runs/again", "--checkpoint_name", "again.pth"]
    assert peak_gigabytes(tmp_path, f"ssl_{method}_3D.py", *volumes, *again) < 3
    config = torch.load(tmp_path / f"weights/{method}3D.pth", weights_only=True)["config"]
    assert config["arch"] == "resnet50" and tuple(config["target_shape"]) == SHAPE
