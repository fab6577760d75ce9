"""Faster R-CNN with a feature pyramid on our ResNet (Ren et al. 2015, Lin et al. 2017), from torchvision's parts."""

import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList

from .downstream import DownstreamWeights
from .pretrained import load_encoders
from .slice_encoder import SliceEncoder, channels_last
from .weight_files import read_weights

PYRAMID_CHANNELS = 256
# sides of the anchors on the five levels, as a share of the picture's: torchvision's 32 … 512 pixels in one of 1024
ANCHORS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
ASPECTS = (0.5, 1.0, 2.0)
BACKBONE = "backbone.body."  # what the names of the ResNet's parameters begin with


class Detector(FasterRCNN):
    """Takes square batches that are already standardised, so that torchvision's own resizing and normalising have no part.

    findings: their number; labels are 1 … findings, 0 is the background. side: of the pictures, in pixels, by which anchors
    are sized. fixed_norms: batch norms of the ResNet stay as they are, statistics and weights, for they were pretrained, and
    a batch of a few pictures has worse ones; else they learn, as a random network needs. least_score: of what is found.
    proposals: of a picture, that the second stage learns from in a step, drawn from four times as many; it judges twice as
    many. With 500 these are torchvision's numbers, but for its 512.
    """

    def __init__(
        self, encoder: SliceEncoder, findings: int, side: int, fixed_norms: bool, least_score: float = 0.05,
        proposals: int = 500,
    ):  # fmt: skip
        widths = [encoder.pooled_dim // 2**i for i in (3, 2, 1, 0)]
        layers = {f"layer{stage}": str(stage - 1) for stage in (1, 2, 3, 4)}
        anchors = AnchorGenerator(tuple((share * side,) for share in ANCHORS), (ASPECTS,) * len(ANCHORS))
        super().__init__(
            BackboneWithFPN(encoder.resnet, layers, widths, PYRAMID_CHANNELS),
            num_classes=findings + 1,
            rpn_anchor_generator=anchors,
            box_score_thresh=least_score,
            rpn_post_nms_top_n_train=4 * proposals,
            rpn_post_nms_top_n_test=2 * proposals,
            box_batch_size_per_image=proposals,
        )
        self.transform = nn.Identity()
        self.fixed_norms = fixed_norms
        for norm in self._norms() if fixed_norms else ():
            norm.requires_grad_(False)

    def forward(self, images: torch.Tensor, targets: list[dict] | None = None):
        """images (B, C, S, S) → in training, with targets a picture (boxes (n, 4), labels (n,)), four losses by name;
        else what is found in each: boxes (n, 4), labels (n,), scores (n,), best first.

        Behind the pyramid nothing is rounded to 16 bits: in bfloat16 a coordinate of 500 pixels is right to 2 of them.
        """
        images = channels_last(images) if images.shape[1] == 1 else images
        pyramid = self.backbone(images)
        exact = torch.promote_types(images.dtype, torch.float32)
        pyramid = {level: features.to(exact) for level, features in pyramid.items()}
        shown = ImageList(images, [tuple(images.shape[-2:])] * len(images))
        with torch.autocast(images.device.type, enabled=False):
            proposals, losses = self.rpn(shown, pyramid, targets)
            found, more = self.roi_heads(pyramid, proposals, shown.image_sizes, targets)
        return {**losses, **more} if self.training else found

    def train(self, mode: bool = True) -> "Detector":
        super().train(mode)
        for norm in self._norms() if self.fixed_norms else ():
            norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.backbone.body.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def make_detector(
    path: str, arch: str, normalise: str, findings: int, side: int, tune: str, least_score: float, proposals: int,
    sampling: str = "", resnet_pretrained: str = "",
) -> tuple[Detector, dict, list[str]]:  # fmt: skip
    """The detector on the ResNet of a weight file of any stage and origin, or on a random one of `arch` where `path` is "".

    normalise: of the pictures ("" = as the weights were trained, else robust). tune: "frozen" leaves the ResNet as it is.
    Gives also what must be known to build it again (`rebuilt`), and what is to be said of loading.
    """
    weights = read_weights(path) if path else None
    normalise = normalise or (weights.config.get("normalise") if weights else None) or "robust"
    channels, said = 3 if normalise == "imagenet" else 1, []
    if weights:
        encoders, said = load_encoders(path, sampling, resnet_pretrained, channels)
        encoder = encoders.slice_encoder
    else:
        with torch.random.fork_rng(devices=[]):  # the rest of the detector begins alike, whatever the ResNet was read from
            encoder = SliceEncoder(arch, channels=channels)
    about = {
        "method": weights.method if weights else "random",
        "arch": encoder.arch,
        "normalise": normalise,
        "channels": channels,
        "side": side,
        "least_score": least_score,
        "proposals": proposals,
        "fixed_norms": bool(path),
    }
    detector = Detector(encoder, findings, side, bool(path), least_score, proposals)
    if tune == "frozen":
        detector.backbone.body.requires_grad_(False)
    return detector, about, said


def rebuilt(weights: DownstreamWeights) -> Detector:
    """The detector that finetune_detection.py wrote, in eval mode. Raises `WeightsError` when its tensors do not fit."""
    about = weights.about
    encoder = SliceEncoder(about["arch"], channels=about["channels"])
    how = (about[name] for name in ("side", "fixed_norms", "least_score", "proposals"))
    detector = Detector(encoder, len(about["findings"]), *how)
    weights.load_into(detector)
    return detector.eval()
