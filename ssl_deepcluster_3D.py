"""Stage 3, DeepClusterV2: learns f_intra and f_inter together, from volumes and, in the same steps, from images.

L = L_inter + intra_weight · L_intra + mask_weight · L_mask
L_inter   each view of a volume tells the cluster that k-means gave the volume
L_intra   each slice tells the cluster of the same anatomical slice, each crop of an image the cluster of the image
L_mask    masked slices are predicted from their neighbours, as in stage 2, f_intra learning too

Reads    training_data_3D/<collection>/*.npy, weights/resnet_deepcluster2D.pth, weights/mask_deepcluster.pth;
         images with --image_path
Writes   weights/deepcluster3D.pth: both encoders and all heads
Run      torchrun --nproc_per_node=2 ssl_deepcluster_3D.py --image_path training_data_2D
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from datasets.draws import seeds
from datasets.joint import joint_loaders
from datasets.labelled import labelled_volumes
from datasets.loader import bank_loaders
from datasets.views import mask_draws, middle_slices, picture_crops, plain_view, two_views
from engine.config import JointConfig
from engine.run import launch, start
from losses.collapse import CollapseGuard
from losses.deepcluster import deepcluster_loss
from losses.kmeans import cluster_counts
from losses.masked import draw_mask, masked_slice_loss
from losses.memory_bank import MemoryBank
from losses.slice_bank import SliceRows, targets_of
from models.joint import JointModel
from models.pretrained import load_joint_start, make_encoders


@dataclass(kw_only=True)
class DeepClusterJointConfig(JointConfig):
    resnet_pretrained: str = "resnet_deepcluster2D.pth"  # weights of stage 1, inside pretrained_path
    trans_pretrained: str = "mask_deepcluster.pth"  # weights of stage 2, inside pretrained_path
    checkpoint_name: str = "deepcluster3D.pth"  # the weight file that this script writes, inside pretrained_path
    kmeans_iterations: int = 10  # of one clustering
    bank: Literal["complete", "published"] = "complete"  # of all volumes; or of the last epoch's, see docs/method.md
    bank_slices_per_volume: int = 32  # slices of a volume, at most, that are clustered


def main(config: DeepClusterJointConfig) -> JointModel:
    run = start(config, __file__)
    loader, image_loader = joint_loaders(config, run.find, run.rank, run.world)
    images = len(image_loader.dataset) if image_loader else 0
    slice_rows = SliceRows(loader.dataset.depths(), config.bank_slices_per_volume, images)
    published = config.bank == "published"
    rows = len(loader) * config.batch_size * run.world if published else len(loader.dataset)
    heads = cluster_counts(config.nmb_prototypes, rows, heads=3)
    slice_heads = cluster_counts(config.nmb_slice_prototypes, slice_rows.total, 1, "--nmb_slice_prototypes")
    token_alone = config.masking == "published"
    model = JointModel(*make_encoders(config), heads, slice_heads, scores=config.scores, token_alone=token_alone)
    inputs = run.input(config.resnet_pretrained), run.input(config.trans_pretrained)
    run.say(*load_joint_start(model, *inputs, config.seed))
    how = {"dtype": run.float_type, "refill": False} if published else {}
    bank = MemoryBank(len(loader.dataset), config.d_model, device=run.device, **how)
    slice_bank = MemoryBank(slice_rows.total, model.head_dim, device=run.device, **how)
    guard = CollapseGuard({"volumes": heads[0], "slices": slice_heads[0]}, run.device)
    network = run.prepare(model, loader, image_loader, bank=bank, slice_bank=slice_bank, guard=guard)
    labelled = labelled_volumes(config, run.find)

    def embed(batch):
        """Whole volumes, as `evaluate_embeddings.py` embeds them."""
        return model.embed(*plain_view(batch, config.normalise, run.float_type))[1]

    def see(batch, pictures, network):
        """A batch's views, what the network makes of them and of crops, the mask, the rows of slices and images in the bank."""
        view = two_views(batch, config.seed, config.view_policy, config.normalise, run.float_type)
        masked = draw_mask(mask_draws(batch, config.seed, view.real.shape[1]), view.real, config.mask_ratio)
        crops = picture_crops(pictures, config.seed, config.normalise, run.float_type) if pictures else []
        out = network(view.pixels, view.real, masked, torch.cat(crops) if crops else None)
        index = batch["on_host"]["index"]
        numbers = pictures["on_host"]["index"] if pictures else index[:0]
        return view, out, masked, slice_rows.of(index, view.positions, view.real, view.step, numbers)

    def remember(batch, out, row, crop, writes):
        """The embeddings of each view go to its bank."""
        for view, volumes in enumerate(out.volume_embeddings.chunk(2)):
            chosen = (writes & (crop == view)).nonzero()[:, 0]
            bank.write(view, batch["index"], volumes)
            slice_bank.write(view, row[chosen], out.projections[chosen.to(run.device, non_blocking=True)])

    def fill_banks():
        """Before the first clustering: all files once, in eval mode; or, as published, a training pass, each view alone."""
        loaders = [loader, image_loader]
        for shown in filter(None, loaders):
            shown.batch_sampler.set_epoch(-1)
        loaders = loaders if published else bank_loaders(loaders, config.workers, run.rank, run.world)
        for batch, pictures in run.evaluate(*loaders, train=published, what="filling the banks"):
            _, out, _, place = see(batch, pictures, model.each_view_alone if published else model)
            remember(batch, out, *place)

    for epoch in run.epochs():
        if run.epoch_begins:
            if not bank.written.any():
                fill_banks()
            starts = seeds(config.seed, "volumes", epoch, len(heads))
            bank.cluster_heads(heads, model.prototypes.volumes, config.kmeans_iterations, starts)
            starts = seeds(config.seed, "slices", epoch, len(slice_heads))
            slice_bank.cluster_heads(slice_heads, model.prototypes.slices, config.kmeans_iterations, starts)
            guard.compare("volumes", bank.clusters[0])
            guard.compare("slices", slice_bank.clusters[0])
            if published:
                bank.forget()
                slice_bank.forget()

        for batch, pictures in run.batches(loader, image_loader):
            view, out, masked, place = see(batch, pictures, network)
            run.show(partial(middle_slices, view), out.volume_embeddings.chunk(2)[0])

            targets = [clusters[batch["index"]].repeat(2) for clusters in bank.clusters]
            inter = deepcluster_loss(out.volume_scores, targets, config.temperature)

            slice_targets = [targets_of(clusters, place[0]) for clusters in slice_bank.clusters]
            intra = deepcluster_loss(out.scores, slice_targets, config.temperature)

            mask = masked_slice_loss(out.predictions, out.slice_embeddings, masked)
            loss = inter + config.intra_weight * intra + config.mask_weight * mask
            frozen = model.prototypes if run.step < config.freeze_prototypes_niters else None
            run.update(loss, {"inter": inter, "intra": intra, "mask": mask}, frozen)

            remember(batch, out, *place)
            guard.add("volumes", targets[0], out.volume_embeddings, inter)
            guard.add("slices", slice_targets[0], out.projections, intra)
        run.watch(guard)
        run.probe(labelled, embed)
    run.finish("joint", "deepcluster", model.state_dict())
    return model


if __name__ == "__main__":
    launch(DeepClusterJointConfig, main)
