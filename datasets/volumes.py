"""The volumes as the loader gives them: fitted, in their own compact type, with all that is needed to make views of them."""

import numpy as np
import torch
from torch.utils.data import Dataset

from .draws import keys, uniform
from .files import Item, summary
from .fit import fit_volume
from .reading import held_by_memory, open_volume, refuse_constant, refuse_nonfinite, refuse_other_depth, volume_shape

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VolumeDataset(Dataset):
    """Items by (index, turn): the volume's number in the global list, and the pass over the data that keys its place.

    target_shape: (N, H, W). `centred` volumes are fitted the same way in every pass (evaluation).
    """

    def __init__(
        self, items: list[Item], target_shape: tuple[int, int, int], seed: int, fit: str = "shrink", centred: bool = False
    ):
        self.items, self.target_shape, self.seed, self.fit, self.centred = items, target_shape, seed, fit, centred
        self._depths: list[int] = []  # known where somebody counts slices

    def __len__(self) -> int:
        return len(self.items)

    def summary(self) -> dict:
        return summary(self.items, "volumes", len(self), self._depths)

    def name_of(self, index: int) -> str:
        """The file that an item is read from."""
        return str(self.items[index].path)

    def depths(self) -> list[int]:
        """The number of slices of every volume, from the headers."""
        self._depths = self._depths or [volume_shape(item.path)[2] for item in self.items]
        return self._depths

    def __getitem__(self, place: tuple[int, int]) -> dict:
        index, turn = place
        draws = None if self.centred else uniform(keys(self.seed, "place", turn, index), 3)
        path = self.items[index].path
        volume = open_volume(path)
        if self._depths:
            refuse_other_depth(path, volume, self._depths[index])
        rows, columns, slices = volume.shape
        with held_by_memory(path, 4 * rows * columns * min(slices, self.target_shape[0])):
            fitted = fit_volume(volume, self.target_shape, draws, self.fit)
        refuse_nonfinite(path, fitted.slices, fitted.low, fitted.high)
        refuse_constant(path, fitted.slices.numpy(), volume)
        return {"index": index, "turn": turn, "fitted": fitted}


def collate_volumes(samples: list[dict]) -> dict[str, torch.Tensor]:
    """A batch of B volumes, padded to the longest of them (N slices).

    slices (B, N, H, W) in the widest type among them; low, high (B,) intensity range; index (B,) int64. What decides which
    work is to be done stays on the host when the batch goes to a device, so that nothing waits for it: `on_host` holds numpy
    arrays index, turn (B,) int64; count (B,) real slices; positions (B, N) float32 source slice numbers; step (B,) source
    slices from one to the next.
    """
    fitted = [sample["fitted"] for sample in samples]
    longest = max(len(f.slices) for f in fitted)
    dtype = widest_type([f.slices.dtype for f in fitted])
    slices = torch.zeros((len(fitted), longest, *fitted[0].slices.shape[1:]), dtype=dtype)
    positions = torch.zeros(len(fitted), longest)
    for row, f in enumerate(fitted):
        slices[row, : len(f.slices)] = f.slices.to(dtype)
        positions[row, : len(f.slices)] = torch.from_numpy(f.positions)
    step, low, high = (
        torch.tensor([getattr(f, name) for f in fitted], dtype=torch.float32) for name in ("step", "low", "high")
    )
    index, turn = (torch.tensor([sample[name] for sample in samples]) for name in ("index", "turn"))
    count = torch.tensor([len(f.slices) for f in fitted])
    stays = on_host({"index": index, "turn": turn, "count": count, "positions": positions, "step": step})
    return {"slices": slices, "low": low, "high": high, "index": index, "on_host": stays}


def on_host(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Copies as numpy arrays: the memory of the tensors changes hands when a worker process sends them."""
    return {name: values.numpy().copy() for name, values in tensors.items()}


def intensities(
    pixels: torch.Tensor, low: torch.Tensor, high: torch.Tensor, normalise: str, dtype: torch.dtype
) -> torch.Tensor:
    """Pixels (B, …) of any type as `dtype`: the range low … high brought to [0, 1], or as they are (`normalise` = none)."""
    pixels = pixels.to(dtype)
    if normalise == "none":
        return pixels
    low, high = (x.to(dtype).view(-1, *[1] * (pixels.ndim - 1)) for x in (low, high))
    return ((pixels - low) / (high - low)).clamp_(0, 1)


def standardise(pixels: torch.Tensor, normalise: str) -> torch.Tensor:
    """Grey values in [0, 1] (…, H, W) with the mean and deviation that the encoder expects: ImageNet's, over its channels.

    "imagenet": three equal channels (…, 3, H, W), each brought to its own.
    """
    if normalise == "none":
        return pixels
    if normalise == "robust":
        return (pixels - 0.449) / 0.226
    return torch.stack([(pixels - mean) / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION)], dim=-3)


def widest_type(dtypes: list[torch.dtype]) -> torch.dtype:
    """The smallest type that holds all of them and that torch computes with: uint8, int16, uint16, int8 or float32."""
    names = [str(dtype).removeprefix("torch.") for dtype in dtypes]
    widest = np.result_type(*names)
    return getattr(torch, widest.name if widest.itemsize <= 2 else "float32")
