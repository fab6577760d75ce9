"""Stage 1, SwAV: learns f_intra, a ResNet on slices, from unlabelled pictures.

Several crops of a picture must fall to the same prototypes. Codes, the soft assignments of the two large crops, come from
Sinkhorn-Knopp, which uses all prototypes equally; every other crop predicts them (Caron et al. 2020).

Reads    training_data_2D/train/<collection>/*.png, and slices of volumes with --volume_path
Writes   weights/resnet_swav2D.pth, flat torchvision names
Run      torchrun --nproc_per_node=2 ssl_swav_2D.py
"""

from dataclasses import dataclass

from datasets.files import find_pictures
from datasets.labelled import labelled_pictures
from datasets.loader import epoch_loader
from datasets.pictures import CropDataset, Pictures, collate_pictures
from datasets.views import picture_crops
from engine.config import ImageConfig
from engine.run import launch, start
from losses.collapse import CollapseGuard
from losses.kmeans import prototype_counts
from losses.swav import EmbeddingQueue, swapped_prediction, too_many_prototypes
from models.image_model import ImageModel, load_image_start
from models.slice_encoder import SliceEncoder


@dataclass(kw_only=True)
class SwavImageConfig(ImageConfig):
    checkpoint_name: str = "resnet_swav2D.pth"  # the weight file that this script writes, inside pretrained_path
    epsilon: float = 0.03  # smoothness of the codes
    sinkhorn_iterations: int = 3  # rounds of making rows and columns equal, for the codes
    freeze_prototypes_niters: int = 313  # steps during which the prototypes stay as they are
    queue_length: int = 0  # earlier pictures that the codes of a step are computed with (0 = none)
    epoch_queue_starts: int = 15  # first epoch that uses the queue


def main(config: SwavImageConfig) -> ImageModel:
    run = start(config, __file__)
    files = run.find(find_pictures, config.data_path, config.volume_path)
    pictures = Pictures(*files, whole_range=config.normalise == "imagenet")
    crops_of = CropDataset(
        pictures, config.seed, config.nmb_crops, config.size_crops, config.min_scale_crops, config.max_scale_crops
    )
    loader = epoch_loader(
        crops_of, collate_pictures, config.batch_size, config.seed, config.workers, run.rank, run.world, "pictures"
    )
    heads = prototype_counts(config.nmb_prototypes, len(pictures))
    model = ImageModel(SliceEncoder(config.arch, recompute=config.recompute), heads, scores=config.scores)
    if config.start_from:
        run.say(*load_image_start(model, run.input(config.start_from)))
    queue = EmbeddingQueue(config.queue_length, model.output_dim, device=run.device)
    guard = CollapseGuard({"images": heads[0]}, run.device)
    queue_rows = config.queue_length if config.epoch_queue_starts < config.epochs else 0
    run.warn(too_many_prototypes(heads, config.batch_size * run.world + queue_rows, "pictures"))
    network = run.prepare(model, loader, queue=queue, guard=guard)
    labelled = labelled_pictures(config, run.find)

    def embed(batch):
        """Whole pictures, as `evaluate_embeddings.py` embeds them."""
        images = picture_crops(batch, config.seed, config.normalise, run.float_type, augment=False)[0]
        return model.slice_encoder.pooled(images)

    for epoch in run.epochs():
        for batch in run.batches(loader):
            crops = picture_crops(batch, config.seed, config.normalise, run.float_type, blur=config.blur)
            projections, scores = network(crops)  # a crop: (B, 128), and (B, K) for each head
            run.show(crops, projections[0])

            queue_is_used = queue.ready and epoch >= config.epoch_queue_starts
            earlier = [model.prototypes(queue.share(crop)) for crop in (0, 1)] if queue_is_used else None
            how = config.epsilon, config.sinkhorn_iterations, config.temperature
            loss, codes = swapped_prediction(scores, earlier, *how, largest=model.prototypes.largest_score)

            run.update(loss, frozen=model.prototypes if run.step < config.freeze_prototypes_niters else None)
            model.prototypes.normalize_()
            queue.push(projections[:2])
            guard.add("images", codes, projections[0], loss)
        run.watch(guard)
        run.probe(labelled, embed)
    run.finish("image", "swav", model.slice_encoder.resnet.state_dict(), flat=True)
    return model


if __name__ == "__main__":
    launch(SwavImageConfig, main)
