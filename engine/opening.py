"""What a run says before it starts: what it learns from, on what, how many steps, and what it will write."""

import shutil
from pathlib import Path

import torch
from torch import nn

from .words import counted, size

MOST_NAMED = 6  # collections
KEPT = 3  # states of a run at a time: the two newest, and the one that is being written


def opening(run, resumed: bool) -> list[str]:
    """What `run` will do, in sentences; what differs from the run that it goes on with, last."""
    config = run.config
    if run.step >= config.epochs * run.steps_per_epoch:
        return [f"{run.folder}: this run is finished; nothing is left to train."]
    epoch, within = divmod(run.step, run.steps_per_epoch)
    begins = f"going on at epoch {epoch + 1}{f', step {within + 1}' if within else ''} of" if resumed else "starting,"
    steps = f"{counted(config.epochs, 'epoch')} of {counted(run.steps_per_epoch, 'step')}"
    said = [f"{run.name}: {begins} {steps}, {machine_said(run.world, run.device, run.dtype)}."]
    state, weights = state_size(run.model, run.optimizer, run.tracked, run.world)
    copies = (config.epochs - 1) // config.checkpoint_freq
    written = disk_said(run.folder, run.output, state, weights, copies, run.scratches.size())
    said += [f"  {sentence}" for sentence in (data_said(run.data), *written)]
    if run.files.changed:
        said.append(f"warning: going on with another configuration: {'; '.join(run.files.changed)}.")
    return said


def data_said(data: list[dict]) -> str:
    """data: summaries of the loaders' data sets (`datasets.files.summary`)."""
    parts = []
    for of in data:
        many, collections = sum(of["collections"].values()), of["collections"]
        count = f"{of['items']} {of['what']}" + (f" of {many} files" if many != of["items"] else "")
        named = sorted(collections.items(), key=lambda one: (-one[1], one[0]))
        listed = [f"{name or 'no folder'} {files}" for name, files in named[:MOST_NAMED]]
        more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
        parts.append(f"{count} in {counted(len(named), 'collection')} ({', '.join(listed + more)})")
    return f"learns from {', and from '.join(parts)}."


def machine_said(world: int, device: torch.device, dtype: torch.dtype) -> str:
    """Processes, device and precision."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else counted(torch.get_num_threads(), "thread")
    many = f"{world} processes, each on" if world > 1 else "1 process on"
    return f"{many} {device.type} ({name}), {str(dtype).removeprefix('torch.')}"


def disk_said(folder: Path, output: Path, state: int, weights: int, copies: int, scratch: int) -> list[str]:
    """What the run will write, in bytes, and a warning where there is no room for it.

    state: of one of its states; copies: of them that are kept besides the newest; scratch: files that go when it ends.
    """
    states = state * (KEPT + copies)
    kept = f"{KEPT} states" + (f" and {'1 kept copy' if copies == 1 else f'{copies} kept copies'}" if copies else "")
    beside = f", and {size(scratch)} that go when it ends" if scratch else ""
    said = [f"writes {output} (about {size(weights)}), and up to {size(states)} into {folder} ({kept}){beside}."]
    free = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists())).free
    if states > free:
        said.append(f"warning: {folder} has {size(free)} left; make room, or keep fewer copies (--checkpoint_freq).")
    return said


def state_size(model: nn.Module, optimizer: torch.optim.Optimizer, tracked: dict, world: int) -> tuple[int, int]:
    """Bytes of a state of the run, about, and of its networks, the model and a frozen one, which the weight file has."""
    of_model = sum(_bytes(value) for value in model.state_dict().values())
    learned = sum(_bytes(parameter) for group in optimizer.param_groups for parameter in group["params"])
    moments = 2 if isinstance(optimizer, torch.optim.AdamW) else 1
    frozen = sum(_size_of(thing, world) for thing in tracked.values() if isinstance(thing, nn.Module))
    return of_model + moments * learned + sum(_size_of(thing, world) for thing in tracked.values()), of_model + frozen


def _size_of(thing, world: int) -> int:
    """Of what is saved with a run; banks hold a share of their rows on each process."""
    if isinstance(thing, nn.Module):
        return sum(_bytes(value) for value in thing.state_dict().values())
    return world * sum(_bytes(value) for value in vars(thing).values() if isinstance(value, torch.Tensor))


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
