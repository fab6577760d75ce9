"""Stage 1, DeepClusterV2: learns f_intra, a ResNet on slices, from unlabelled pictures.

Every epoch the embeddings of all pictures are clustered by spherical k-means; the centroids become the prototypes, and each
crop of a picture must tell the picture's cluster (Caron et al. 2018, 2020).

Reads    training_data_2D/train/<collection>/*.png, and slices of volumes with --volume_path
Writes   weights/resnet_deepcluster2D.pth, flat torchvision names
Run      torchrun --nproc_per_node=2 ssl_deepcluster_2D.py
"""

from dataclasses import dataclass
from typing import Literal

import torch

from datasets.draws import seeds
from datasets.files import find_pictures
from datasets.labelled import labelled_pictures
from datasets.loader import bank_loaders, epoch_loader
from datasets.pictures import CropDataset, Pictures, collate_pictures
from datasets.views import picture_crops
from engine.config import ImageConfig
from engine.run import launch, start
from losses.collapse import CollapseGuard
from losses.deepcluster import deepcluster_loss
from losses.kmeans import cluster_counts
from losses.memory_bank import MemoryBank
from models.image_model import ImageModel, load_image_start
from models.slice_encoder import SliceEncoder


@dataclass(kw_only=True)
class DeepClusterImageConfig(ImageConfig):
    checkpoint_name: str = "resnet_deepcluster2D.pth"  # the weight file that this script writes, inside pretrained_path
    nmb_crops: tuple[int, ...] = (2,)
    size_crops: tuple[int, ...] = (224,)
    min_scale_crops: tuple[float, ...] = (0.08,)
    max_scale_crops: tuple[float, ...] = (1.0,)
    kmeans_iterations: int = 10  # of one clustering
    head_batchnorm: bool = True  # in the projection head; VISSL's has none
    bank: Literal["complete", "published"] = "complete"  # of all pictures; or VISSL's, of the last epoch's, see docs/method.md


def main(config: DeepClusterImageConfig) -> ImageModel:
    run = start(config, __file__)
    files = run.find(find_pictures, config.data_path, config.volume_path)
    pictures = Pictures(*files, whole_range=config.normalise == "imagenet")
    crops_of = CropDataset(
        pictures, config.seed, config.nmb_crops, config.size_crops, config.min_scale_crops, config.max_scale_crops
    )
    loader = epoch_loader(
        crops_of, collate_pictures, config.batch_size, config.seed, config.workers, run.rank, run.world, "pictures"
    )
    published = config.bank == "published"
    rows = len(loader) * config.batch_size * run.world if published else len(pictures)
    heads = cluster_counts(config.nmb_prototypes, rows, heads=3)
    slice_encoder = SliceEncoder(config.arch, recompute=config.recompute)
    model = ImageModel(slice_encoder, heads, scores=config.scores, head_batchnorm=config.head_batchnorm)
    if config.start_from:
        run.say(*load_image_start(model, run.input(config.start_from)))
    how = {"dtype": run.float_type, "refill": False} if published else {}
    bank = MemoryBank(len(pictures), model.output_dim, device=run.device, **how)
    guard = CollapseGuard({"images": heads[0]}, run.device)
    network = run.prepare(model, loader, bank=bank, guard=guard)
    labelled = labelled_pictures(config, run.find)

    def embed(batch):
        """Whole pictures, as `evaluate_embeddings.py` embeds them."""
        images = picture_crops(batch, config.seed, config.normalise, run.float_type, augment=False)[0]
        return model.slice_encoder.pooled(images)

    def fill_bank():
        """Before the first clustering: every picture once, in eval mode; or, as published, the batches of a training pass."""
        loader.batch_sampler.set_epoch(-1)
        shown = [loader] if published else bank_loaders([loader], config.workers, run.rank, run.world)
        for batch in run.evaluate(*shown, train=published, what="filling the bank"):
            crops = picture_crops(batch, config.seed, config.normalise, run.float_type, blur=config.blur)[:2]
            # in train mode it matters whose batch statistics an embedding has: as published, those of its own crops
            projections = [model([crop])[0][0] for crop in crops] if published else model(crops)[0]
            for crop in range(2):
                bank.write(crop, batch["index"], projections[crop])

    for epoch in run.epochs():
        if run.epoch_begins:
            if not bank.written.any():
                fill_bank()
            starts = seeds(config.seed, "k-means", epoch, len(heads))
            bank.cluster_heads(heads, model.prototypes, config.kmeans_iterations, starts)
            guard.compare("images", bank.clusters[0])
            if published:
                bank.forget()

        for batch in run.batches(loader):
            crops = picture_crops(batch, config.seed, config.normalise, run.float_type, blur=config.blur)
            projections, scores = network(crops)  # a crop: (B, 128), and (B, K) for each head
            run.show(crops, projections[0])
            targets = [assigned[batch["index"]].repeat(len(crops)) for assigned in bank.clusters]  # (B,) a head
            loss = deepcluster_loss([torch.cat(of_head) for of_head in zip(*scores)], targets, config.temperature)

            run.update(loss, frozen=model.prototypes if run.step < config.freeze_prototypes_niters else None)
            for crop in range(2):
                bank.write(crop, batch["index"], projections[crop])
            guard.add("images", targets[0][: len(batch["index"])], projections[0], loss)
        run.watch(guard)
        run.probe(labelled, embed)
    run.finish("image", "deepcluster", model.slice_encoder.resnet.state_dict(), flat=True)
    return model


if __name__ == "__main__":
    launch(DeepClusterImageConfig, main)
