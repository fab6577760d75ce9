"""What a run computes on, and with which versions: for the record."""

import os
import platform

import torch
import torchvision


def environment(world: int = 1) -> dict[str, str | int]:
    """Device, processes and versions as plain values. world: the number of processes. No name of a machine or a person."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"CPU ({platform.machine()}), {os.cpu_count()} cores"
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    return {"device": device, "processes": world, **versions, "system": platform.system()}
