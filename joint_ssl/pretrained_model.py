"""The model that `load_model` gives: encoders of any weight file with the preprocessing of their training."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from .datasets.fit import Fitted, evenly, fit_volume
from .datasets.pictures import TYPE_RANGES
from .datasets.views import plain_view
from .datasets.volumes import collate_volumes, intensities, standardise
from .models.frozen import embed_volumes, shown_to, slice_network
from .models.pretrained import Encoders, load_encoders


def load_model(path: str, sampling: str = "", resnet: str = "", channels: int = 3) -> "PretrainedModel":
    """The encoders of a weight file, in eval mode, with the preprocessing of their training; says what was loaded.

    path: a file of this project, a published one, VISSL's, or a ResNet by torchvision's names. sampling: "da018" or "da020",
    where keys are read ("" = as the file tells, or da018 for published ones, whose environment pins it). resnet: the file of
    stage 1 that belongs to a published mask_*.pth, which has no ResNet. channels: of the pictures; one always fits.
    Raises `WeightsError`.
    """
    encoders, said = load_encoders(path, sampling, resnet, channels)
    print(*said, sep="\n")
    return PretrainedModel(encoders)


class PretrainedModel(nn.Module):
    """f_intra and, after stages 2 and 3, f_inter. After stage 1 there is no map to D: embeddings are then slice features.

    `fit=True` brings pictures and volumes to the size that the networks were trained on; `fit=False` takes them as they are.
    """

    def __init__(self, encoders: Encoders):
        super().__init__()
        self.slice_encoder, self.volume_encoder = encoders.slice_encoder, encoders.volume_encoder
        self.config = encoders.config
        self.target_shape, self.fit, self.normalise = shown_to(encoders)
        self.eval()

    @torch.no_grad()
    def encode_slices(self, images: Sequence | np.ndarray | torch.Tensor, fit: bool = True) -> torch.Tensor:
        """images (B, H, W) or (B, C, H, W), or a list of such pictures, of raw intensities → (B, D) float32.

        Raises ValueError for what is no such picture, or has NaN or infinite values.
        """
        channels, fitted = self.slice_encoder.resnet.conv1.in_channels, []
        for image in _arrays(images, "pictures (H, W) or (C, H, W)", (2, 3)):
            image = image[None] if image.ndim == 2 else image
            if len(image) not in (1, channels):
                raise ValueError(f"a picture of shape {image.shape} has neither 1 nor {channels} channels, which come first.")
            size = self.target_shape[1:] if fit else image.shape[1:]
            fitted.append(fit_volume(np.moveaxis(image, 0, -1), (len(image), *size), None, self.fit))
            if self.normalise == "imagenet" and image.dtype in TYPE_RANGES:
                fitted[-1].low, fitted[-1].high = TYPE_RANGES[image.dtype]
        batch = _collated(fitted)
        pixels = intensities(batch["slices"], batch["low"], batch["high"], self.normalise, torch.float32)
        return slice_network(self)(_standardised(pixels, self.normalise).to(self._device()))

    @torch.no_grad()
    def encode_volumes(self, volumes: Sequence | np.ndarray | torch.Tensor, fit: bool = True) -> torch.Tensor:
        """volumes (B, N, H, W), or a list of (N, H, W) of any sizes, of raw intensities → (B, D) float32, unit length.

        Where f_inter is bound to a number of slices (published files), others are sampled to it, which is said.
        Raises ValueError for what is no such volume, or has NaN or infinite values.
        """
        batch = _collated([self._fitted(volume, fit) for volume in _arrays(volumes, "volumes (N, H, W)", (3,))])
        pixels, real = (x.to(self._device()) for x in plain_view(batch, self.normalise, torch.float32))
        return embed_volumes(self, pixels, real)

    def _fitted(self, volume: np.ndarray, fit: bool) -> Fitted:
        bound = self.volume_encoder.slices if self.volume_encoder is not None else None
        if bound and len(volume) != bound:
            print(f"{len(volume)} slices are sampled to the {bound} that this f_inter is bound to.")
            volume = volume[evenly(len(volume), bound)]
        shape = (bound or self.target_shape[0], *self.target_shape[1:]) if fit else volume.shape
        return fit_volume(np.moveaxis(volume, 0, -1), shape, None, self.fit)

    def _device(self) -> torch.device:
        return self.slice_encoder.resnet.conv1.weight.device


def _arrays(items: Sequence | np.ndarray | torch.Tensor, what: str, axes: tuple[int, ...]) -> list[np.ndarray]:
    """The items as arrays. Raises ValueError for what they must not be."""
    items = [item.detach().cpu() if isinstance(item, torch.Tensor) else item for item in items]
    arrays = [(x.float() if x.dtype == torch.bfloat16 else x).numpy() if isinstance(x, torch.Tensor) else x for x in items]
    arrays = [np.asarray(array) for array in arrays]
    wrong = [array.shape for array in arrays if array.ndim not in axes or 0 in array.shape or array.dtype.kind not in "biuf"]
    if wrong or not arrays:
        raise ValueError(f"a list or an array of {what} of numbers is needed, not {f'one of {wrong[0]}' if wrong else 'none'}.")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("there are NaN or infinite values; replace them by numbers, such as the value of air.")
    return arrays


def _standardised(pixels: torch.Tensor, normalise: str) -> torch.Tensor:
    """(B, C, H, W) → the same; "imagenet": (B, 1 or 3, H, W) → (B, 3, H, W), each channel with its own mean and deviation."""
    if normalise != "imagenet":
        return standardise(pixels, normalise)
    channels = [pixels[:, channel % pixels.shape[1]] for channel in range(3)]
    return torch.stack([standardise(one, normalise)[:, number] for number, one in enumerate(channels)], 1)


def _collated(fitted: list[Fitted]) -> dict[str, torch.Tensor]:
    return collate_volumes([{"index": number, "turn": 0, "fitted": one} for number, one in enumerate(fitted)])
