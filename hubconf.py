"""The entry of torch.hub, and what a script in this folder takes weights and files by.

from hubconf import load_model, read_volume         # in this folder; elsewhere:
model = torch.hub.load("path/of/this/repository", "load_model", "weights/swav3D.pth", source="local")

model.encode_volumes([read_volume("scan.nii.gz")])  # of any format, turned as in training
"""

from joint_ssl.datasets.streamed import read_volume

from joint_ssl import PretrainedModel, load_model

__all__ = ["PretrainedModel", "load_model", "read_volume"]
dependencies = ["torch", "torchvision", "numpy", "safetensors", "PIL", "pydicom"]
