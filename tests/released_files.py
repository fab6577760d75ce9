"""Files as the published code and VISSL write them, of any size, with tensors that anybody can draw again."""

from pathlib import Path

import numpy as np
import torch
import torchvision

from tests import reference_recipe as recipe


def resnet_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    state = getattr(torchvision.models, arch)(weights=None).state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if not name.startswith("fc.")}


def layer_shapes(slices: int, dim: int) -> dict[str, tuple[int, ...]]:
    """One layer of the published transformer: slices are channels of the attention, 8 heads of 64 numbers."""
    attention = {
        "to_offsets.0.weight": (64, 1, 6),
        "to_offsets.0.bias": (64,),
        "to_offsets.2.weight": (1, 64, 1),
        "rel_pos_bias.mlp.0.0.weight": (slices // 4, 1),
        "rel_pos_bias.mlp.0.0.bias": (slices // 4,),
        "rel_pos_bias.mlp.1.0.weight": (slices // 4, slices // 4),
        "rel_pos_bias.mlp.1.0.bias": (slices // 4,),
        "rel_pos_bias.mlp.2.weight": (1, slices // 4),
        "rel_pos_bias.mlp.2.bias": (1,),
        "to_q.weight": (512, slices // 8, 1),
        "to_k.weight": (512, slices // 8, 1),
        "to_v.weight": (512, slices // 8, 1),
        "to_out.weight": (slices, 512, 1),
        "to_out.bias": (slices,),
    }
    shapes = {f"attention.{name}": shape for name, shape in attention.items()}
    for norm in ("norm1", "norm2"):
        shapes |= {f"{norm}.weight": (dim,), f"{norm}.bias": (dim,)}
    shapes |= {"ffn.linear1.weight": (720, dim), "ffn.linear1.bias": (720,)}
    return shapes | {"ffn.linear2.weight": (dim, 720), "ffn.linear2.bias": (dim,)}


def mask_shapes(slices: int = 64, dim: int = 640) -> dict[str, tuple[int, ...]]:
    layers = {f"encoder.encoder.layers.{i}.{n}": s for i in range(4) for n, s in layer_shapes(slices, dim).items()}
    return {"mask_token": (dim,), **layers, "decoder.weight": (dim, dim), "decoder.bias": (dim,)}


def joint_shapes(arch: str = "resnet50", slices: int = 64, dim: int = 640, prototypes=(3000,)) -> dict[str, tuple[int, ...]]:
    resnet = resnet_shapes(arch)
    width = resnet["layer4.0.bn1.weight"][0] * (4 if "layer1.0.conv3.weight" in resnet else 1)
    features = width // 8 + width // 4 + width // 2 + 2 * width
    shapes = {f"intra.{name}": shape for name, shape in resnet.items()}
    shapes |= {"intra.deconv.weight": (features, dim, 1), "intra.deconv.bias": (dim,)}
    shapes |= {f"inter.encoder.layers.{i}.{n}": s for i in range(4) for n, s in layer_shapes(slices, dim).items()}
    return shapes | {f"prototypes.prototypes{i}.weight": (k, dim) for i, k in enumerate(prototypes)}


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    likes = {
        name: torch.zeros(shape, dtype=torch.int64 if "num_b" in name else torch.float32) for name, shape in shapes.items()
    }
    return {name: recipe.tensor(name, seed, like) for name, like in likes.items()}


def checkpoint(state: dict[str, torch.Tensor]) -> dict:
    """A published checkpoint of stage 2 or 3: wrapped names, and an optimiser whose rate is a number of numpy's."""
    groups = [{"lr": np.float64(0.01), "momentum": 0.9, "dampening": 0, "weight_decay": 1e-6, "nesterov": False, "params": [0]}]
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": groups}
    return {"epoch": 100, "state_dict": {f"module.{name}": value for name, value in state.items()}, "optimizer": optimizer}


def write(folder: Path, seed: int = 5, arch: str = "resnet18", slices: int = 16, dim: int = 32) -> dict[str, dict]:
    """The published files of one method below `folder`; returns their tensors by file name."""
    states = {
        "resnet_swav2D.pth": drawn(resnet_shapes(arch), seed),
        "mask_swav.pth": drawn(mask_shapes(slices, dim), seed),
        "swav3D.pth": drawn(joint_shapes(arch, slices, dim, (7,)), seed),
        "deepcluster3D.pth": drawn(joint_shapes(arch, slices, dim, (4, 4, 4)), seed),
    }
    for name, state in states.items():
        torch.save(state if "2D" in name else checkpoint(state), folder / name)
    return states
