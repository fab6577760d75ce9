"""The entry of torch.hub:

model = torch.hub.load("path/of/this/repository", "load_model", "weights/swav3D.pth", source="local")
"""

from joint_ssl import load_model

__all__ = ["load_model"]
dependencies = ["torch", "torchvision", "numpy", "safetensors", "PIL"]
