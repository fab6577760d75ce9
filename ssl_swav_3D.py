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
from functools import partial

import torch

from datasets.joint import joint_loaders
from datasets.labelled import labelled_volumes
from datasets.views import mask_draws, middle_slices, picture_crops, plain_view, two_views
from engine.config import JointConfig
from engine.run import launch, start
from losses.collapse import CollapseGuard
from losses.kmeans import prototype_counts
from losses.masked import draw_mask, masked_slice_loss
from losses.pairs import paired_rows
from losses.swav import EmbeddingQueue, swapped_prediction, too_many_prototypes
from models.joint import JointModel
from models.pretrained import load_joint_start, make_encoders


@dataclass(kw_only=True)
class SwavJointConfig(JointConfig):
    resnet_pretrained: str = "resnet_swav2D.pth"  # weights of stage 1, inside pretrained_path
    trans_pretrained: str = "mask_swav.pth"  # weights of stage 2, inside pretrained_path
    checkpoint_name: str = "swav3D.pth"  # the weight file that this script writes, inside pretrained_path
    epsilon: float = 0.03  # smoothness of the codes
    sinkhorn_iterations: int = 3  # rounds of making rows and columns equal, for the codes
    freeze_prototypes_niters: int = 313  # steps during which the prototypes stay as they are
    queue_length: int = 64  # earlier volumes that the codes of a step are computed with (0 = none)
    slice_queue_length: int = 1024  # the same for slices and images
    epoch_queue_starts: int = 15  # first epoch that uses the queues


def main(config: SwavJointConfig) -> JointModel:
    run = start(config, __file__)
    loader, image_loader = joint_loaders(config, run.find, run.rank, run.world)
    heads = prototype_counts(config.nmb_prototypes, len(loader.dataset))
    slice_heads = prototype_counts(config.nmb_slice_prototypes, sum(loader.dataset.depths()))
    token_alone = config.masking == "published"
    model = JointModel(*make_encoders(config), heads, slice_heads, scores=config.scores, token_alone=token_alone)
    inputs = run.input(config.resnet_pretrained), run.input(config.trans_pretrained)
    run.say(*load_joint_start(model, *inputs, config.seed))
    queue = EmbeddingQueue(config.queue_length, config.d_model, device=run.device)
    slice_queue = EmbeddingQueue(config.slice_queue_length, model.head_dim, device=run.device)
    guard = CollapseGuard({"volumes": heads[0], "slices": slice_heads[0]}, run.device)
    queue_rows = config.queue_length if config.epoch_queue_starts < config.epochs else 0
    run.warn(too_many_prototypes(heads, config.batch_size * run.world + queue_rows, "volumes"))
    network = run.prepare(model, loader, image_loader, queue=queue, slice_queue=slice_queue, guard=guard)
    labelled = labelled_volumes(config, run.find)

    def embed(batch):
        """Whole volumes, as `evaluate_embeddings.py` embeds them."""
        return model.embed(*plain_view(batch, config.normalise, run.float_type))[1]

    def swapped(a, b, prototypes, queue):
        """SwAV's loss of two views, each with its scores for every head, and the codes of view a by the first head."""
        queue_is_used = queue.ready and run.epoch >= config.epoch_queue_starts
        earlier = [prototypes(queue.share(view)) for view in (0, 1)] if queue_is_used else None
        how = config.epsilon, config.sinkhorn_iterations, config.temperature
        return swapped_prediction([a, b], earlier, *how, largest=prototypes.largest_score)

    for _epoch in run.epochs():
        for batch, pictures in run.batches(loader, image_loader):
            view = two_views(batch, config.seed, config.view_policy, config.normalise, run.float_type)
            masked = draw_mask(mask_draws(batch, config.seed, view.real.shape[1]), view.real, config.mask_ratio)
            crops = picture_crops(pictures, config.seed, config.normalise, run.float_type) if pictures else []
            out = network(view.pixels, view.real, masked, torch.cat(crops) if crops else None)
            run.show(partial(middle_slices, view), out.volume_embeddings.chunk(2)[0])

            a, b = zip(*(scores.chunk(2) for scores in out.volume_scores))
            inter, volume_codes = swapped(a, b, model.prototypes.volumes, queue)

            images = len(pictures["index"]) if pictures else 0
            same_a, same_b, matched = paired_rows(view.positions, view.real, view.step, images, run.device)
            a, b = zip(*((scores[same_a], scores[same_b]) for scores in out.scores))
            intra, slice_codes = swapped(a, b, model.prototypes.slices, slice_queue)

            mask = masked_slice_loss(out.predictions, out.slice_embeddings, masked)
            loss = inter + config.intra_weight * intra + config.mask_weight * mask
            parts = {"inter": inter, "intra": intra, "mask": mask, "matched": matched}
            run.update(loss, parts, frozen=model.prototypes if run.step < config.freeze_prototypes_niters else None)

            for prototypes in model.prototypes.children():
                prototypes.normalize_()
            queue.push(out.volume_embeddings.chunk(2))
            slice_queue.push([out.projections[same_a], out.projections[same_b]])
            guard.add("volumes", volume_codes, out.volume_embeddings.chunk(2)[0], inter)
            guard.add("slices", slice_codes, out.projections[same_a], intra)
        run.watch(guard)
        run.probe(labelled, embed)
    run.finish("joint", "swav", model.state_dict())
    return model


if __name__ == "__main__":
    launch(SwavJointConfig, main)
