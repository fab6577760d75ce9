"""Weights of any stage and origin as one model that takes intensities as they are in the files.

from joint_ssl import load_model, read_volume       # in the checkout, and after `pip install .` anywhere

model = load_model("weights/swav3D.pth")
model.encode_slices(images)                         # (B, H, W) or (B, C, H, W) → (B, D)
model.encode_volumes(volumes)                       # (B, N, H, W), or a list of (N, H, W) → (B, D)
model.encode_volumes([read_volume("scan.nii.gz")])  # or .npy, .mha, .mhd, .nrrd
"""

from pathlib import Path

if not Path(__file__).with_name("models").is_dir():
    # In the checkout models/ and datasets/ lie beside this folder, not in it. Found as joint_ssl.models and
    # joint_ssl.datasets, they meet no package of another project that is called `datasets`.
    __path__.append(str(Path(__file__).resolve().parents[1]))

from .datasets.errors import DataError
from .models.errors import WeightsError
from .pretrained_model import PretrainedModel, load_model
from .volume_file import read_volume

__all__ = ["DataError", "PretrainedModel", "WeightsError", "load_model", "read_volume"]
