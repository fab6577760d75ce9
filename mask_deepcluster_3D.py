"""Stage 2: learns f_inter, a transformer over the slices of a volume, with f_intra frozen.

A share of the slice embeddings is replaced by a learned token; f_inter and a linear decoder predict them from their
neighbours. Loss: mean squared error on the masked slices only. R² says how much better that is than the mean embedding, and
than interpolating between the neighbours.

Reads    training_data_3D/<collection>/*.npy, weights/resnet_deepcluster2D.pth
Writes   weights/mask_deepcluster.pth: f_intra with its map to D, f_inter, token, decoder
Run      torchrun --nproc_per_node=2 mask_deepcluster_3D.py
"""

from dataclasses import dataclass

import torch

from datasets.files import find_volumes, thinned
from datasets.labelled import labelled_volumes
from datasets.loader import epoch_loader, once_loader
from datasets.views import mask_draws, plain_view, two_views
from datasets.volumes import VolumeDataset, collate_volumes
from engine.config import VolumeConfig
from engine.run import launch, start
from losses.distributed import all_sum
from losses.masked import MaskedScore, draw_mask, masked_slice_loss, published_mask_loss
from models.masked_volume import MaskedVolumeModel, interpolate_neighbours
from models.pretrained import load_resnet, make_encoders
from models.slice_encoder import draw_published_map, embed_slices, set_map
from models.volume_encoder import volume_embedding


@dataclass(kw_only=True)
class MaskConfig(VolumeConfig):
    resnet_pretrained: str = "resnet_deepcluster2D.pth"  # weights of stage 1, inside pretrained_path
    checkpoint_name: str = "mask_deepcluster.pth"
    masks_per_view: int = 4  # masks of each view in one step: f_intra, which costs most, embeds the view once for all of them
    scored_volumes: int = 256  # volumes, at most, on which R² is measured every epoch, whole and with masks of their own


def main(config: MaskConfig, method: str = "deepcluster") -> MaskedVolumeModel:
    run = start(config, __file__ if method == "deepcluster" else f"mask_{method}_3D.py")
    items = find_volumes(config.data_path)
    volumes = VolumeDataset(items, config.target_shape, config.seed, config.fit)
    loader = epoch_loader(
        volumes, collate_volumes, config.batch_size, config.seed, config.workers, run.rank, run.world, "volumes"
    )
    published = config.masking == "published"
    slice_encoder, volume_encoder = make_encoders(config, identity=not published)
    run.say(load_resnet(slice_encoder, run.input(config.resnet_pretrained)))
    slice_encoder = run.freeze(slice_encoder)
    model = MaskedVolumeModel(volume_encoder, config.d_model, token_alone=published)
    network = run.prepare(model, loader, slice_encoder=slice_encoder)

    scored = VolumeDataset(thinned(items, config.scored_volumes), config.target_shape, config.seed, config.fit, centred=True)
    plain = once_loader(scored, collate_volumes, config.batch_size, config.workers, run.rank, run.world)

    labelled = labelled_volumes(config)

    def embed(pixels, real):
        with torch.no_grad():
            return embed_slices(slice_encoder, pixels, real)

    def mean_features():
        """(feature_dim,): of the real slices of the scored volumes, over all ranks."""
        total = torch.zeros(slice_encoder.feature_dim + 1, dtype=torch.float64, device=run.device)
        for batch in run.evaluate(plain):
            pixels, real = plain_view(batch, config.normalise, run.float_type)
            features = slice_encoder.features(pixels[real][:, None])
            total += torch.cat([features.double().sum(0), real.sum().double()[None]])
        total = all_sum(total)
        return total[:-1] / total[-1]

    def score():
        """R² on whole volumes, each with a mask that no training step uses."""
        tally = MaskedScore()
        for batch in run.evaluate(plain):
            pixels, real = plain_view(batch, config.normalise, run.float_type)
            targets = embed(pixels, real)
            masked = draw_mask(mask_draws(batch, config.seed, real.shape[1], views=1), real, config.mask_ratio)
            guess = interpolate_neighbours(targets, real, masked)
            tally.add(model(targets, real, masked), targets, guess, masked)
        return tally.compute()

    def embed_whole(batch):
        """Whole volumes, as `evaluate_embeddings.py` embeds them."""
        pixels, real = plain_view(batch, config.normalise, run.float_type)
        return volume_embedding(model.volume_encoder(embed(pixels, real), real), real)

    # f_intra's map to D is made here, once: stage 3 goes on with it
    if config.slice_embedding == "published":
        draw_published_map(slice_encoder, config.seed)
    else:
        set_map(slice_encoder, mean_features(), config.seed)
    for _epoch in run.epochs():
        for batch in run.batches(loader):
            view = two_views(batch, config.seed, config.view_policy, config.normalise, run.float_type)
            targets = embed(view.pixels, view.real).repeat(config.masks_per_view, 1, 1)
            real = view.real.repeat(config.masks_per_view, 1)
            draws = mask_draws(batch, config.seed, real.shape[1], views=2 * config.masks_per_view, one_for_both=published)
            masked = draw_mask(draws, real, config.mask_ratio)

            predictions = network(targets, real, masked)
            if published:
                loss = published_mask_loss(predictions, targets, config.mask_ratio)
            else:
                loss = masked_slice_loss(predictions, targets, masked)
            run.update(loss)
        run.log(**score())
        run.probe(labelled, embed_whole)
    state = {f"slice_encoder.{k}": v for k, v in slice_encoder.state_dict().items()}
    run.finish("mask", method, state | {f"masked.{k}": v for k, v in model.state_dict().items()})
    return model


if __name__ == "__main__":
    launch(MaskConfig, main)
