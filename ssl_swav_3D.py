"""Stage 3, SwAV: learns f_intra and f_inter together, from volumes and, in the same steps, from images.

L = L_inter + intra_weight · L_intra + mask_weight · L_mask
L_inter   each view of a volume predicts the codes of the other view (volume embeddings)
L_intra   a slice of one view predicts the codes of the same anatomical slice of the other; likewise two crops of an image
L_mask    masked slices are predicted from their neighbours, as in stage 2, f_intra learning too

Reads    training_data_3D/<collection>/*.npy, weights/resnet_swav2D.pth, weights/mask_swav.pth; images with --image_path
Writes   weights/swav3D.pth: both encoders and all heads
Run      torchrun --nproc_per_node=2 ssl_swav_3D.py --image_path training_data_2D
"""

from dataclasses import dataclass

import torch

from datasets.joint import joint_loaders, slice_rows
from datasets.views import mask_draws, picture_crops, two_views
from engine.config import JointConfig
from engine.run import launch, start
from losses.collapse import CollapseGuard
from losses.kmeans import auto_prototypes
from losses.masked import draw_mask, masked_slice_loss
from losses.matching import match_slices
from losses.swav import EmbeddingQueue, swav_codes, swav_loss
from models.joint import start_joint_model


@dataclass(kw_only=True)
class SwavJointConfig(JointConfig):
    resnet_pretrained: str = "resnet_swav2D.pth"
    trans_pretrained: str = "mask_swav.pth"
    checkpoint_name: str = "swav3D.pth"
    epsilon: float = 0.05  # smoothness of the codes
    sinkhorn_iterations: int = 3
    queue_length: int = 0  # earlier volumes that the codes of a step are computed with (0 = none)
    epoch_queue_starts: int = 0  # first epoch that uses the queue
    slice_queue_length: int | Literal["auto"] = "auto"  # the same for slices and images


def main(config: SwavJointConfig) -> None:
    run = start(config, __file__)
    loader, image_loader = joint_loaders(config, run.rank, run.world)
    heads, slice_heads = joint_prototypes(config, loader, image_loader)
    model = start_joint_model(
        config, heads, slice_heads, run.input(config.resnet_pretrained), run.input(config.trans_pretrained)
    )
    queue = EmbeddingQueue(config.queue_length, config.d_model)
    slice_queue = EmbeddingQueue(config.slice_queue_length, model.head_dim)
    guard = CollapseGuard({"volumes": heads[0], "slices": slice_heads[0]})
    network = run.prepare(model, len(loader), queue=queue, slice_queue=slice_queue, guard=guard)

    def swapped(scores, prototypes, queue):
        """SwAV loss of two views' scores [(B, K) of view a, of view b] a head; and the codes of view a."""
        ...

    for epoch in run.epochs():
        for batch, pictures in run.batches(loader, image_loader):
            view = two_views(batch, config.seed, config.view_policy, config.normalise, run.float_type)
            masked = draw_mask(mask_draws(batch, config.seed, view.real.shape[1]), view.real, config.mask_ratio)
            crops = picture_crops(pictures, config.seed, config.normalise, run.float_type) if pictures else None
            out = network(view.pixels, view.real, masked, torch.cat(crops) if crops else None)
