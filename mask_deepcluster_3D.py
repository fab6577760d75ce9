"""Stage 2: learns f_inter, a transformer over the slices of a volume, with f_intra frozen.

A share of the slice embeddings is replaced by a learned token; f_inter and a linear decoder predict them from their
neighbours. Loss: mean squared error on the masked slices only. R² says how much better that is than the mean embedding, and
than interpolating between the neighbours.

Reads    training_data_3D/<collection>/*.npy, weights/resnet_deepcluster2D.pth
Writes   weights/mask_deepcluster.pth: f_intra with its map to D, f_inter, token, decoder
Run      torchrun --nproc_per_node=2 mask_deepcluster_3D.py
"""

from dataclasses import dataclass, replace
from functools import partial

import torch

from datasets.cached_views import CachedViews, collate_cached
from datasets.files import find_volumes, thinned
from datasets.labelled import labelled_volumes
from datasets.loader import epoch_loader, once_loader
from datasets.views import mask_draws, middle_slices, plain_view, two_views
from datasets.volumes import VolumeDataset, collate_volumes
from engine.config import VolumeConfig
from engine.processes import autocast
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
    checkpoint_name: str = "mask_deepcluster.pth"  # the weight file that this script writes, inside pretrained_path
    masks_per_view: int = 4  # masks of each view in one step: f_intra, which costs most, embeds the view once for all of them
    cached_views: int = 0  # views of a volume that f_intra embeds once; all epochs draw from them (0 = new ones each time)
    scored_volumes: int = 256  # volumes, at most, on which R² is measured every epoch, whole and with masks of their own


def main(config: MaskConfig, method: str = "deepcluster") -> MaskedVolumeModel:
    run = start(config, __file__ if method == "deepcluster" else f"mask_{method}_3D.py")
    items = run.find(find_volumes, config.data_path)
    volumes = VolumeDataset(items, config.target_shape, config.seed, config.fit)
    dealt = {"batch_size": config.batch_size, "rank": run.rank, "world": run.world}
    loader = epoch_loader(volumes, collate_volumes, seed=config.seed, workers=config.workers, what="volumes", **dealt)
    published = config.masking == "published"
    slice_encoder, volume_encoder = make_encoders(config, identity=not published)
    run.say(load_resnet(slice_encoder, run.input(config.resnet_pretrained)))
    slice_encoder = run.freeze(slice_encoder)
    model = MaskedVolumeModel(volume_encoder, config.d_model, token_alone=published)
    network = run.prepare(model, loader, slice_encoder=slice_encoder)

    number_of = {item: number for number, item in enumerate(items)}
    chosen = thinned(items, config.scored_volumes)
    scored = VolumeDataset(chosen, config.target_shape, config.seed, config.fit, centred=True)
    plain = once_loader(scored, collate_volumes, workers=config.workers, **dealt)

    def embed(pixels, real):
        with torch.no_grad():
            return embed_slices(slice_encoder, pixels, real)

    def mean_features():
        """(feature_dim,): of the real slices of the scored volumes, over all ranks."""
        total = torch.zeros(slice_encoder.feature_dim + 1, dtype=torch.float64, device=run.device)
        for batch in run.evaluate(plain):
            pixels, real = plain_view(batch, config.normalise, run.float_type)
            features = slice_encoder.features(pixels[real.to(run.device)][:, None])
            total += torch.cat([features.double().sum(0), features.new_full((1,), len(features), dtype=torch.float64)])
        total = all_sum(total)
        return total[:-1] / total[-1]

    def remembered(loader):
        """Batches with the slice embeddings of whole volumes in place of pixels: once for all epochs, as f_intra is frozen."""
        batches = []
        for batch in run.evaluate(loader, what="embedding whole volumes"):
            pixels, real = plain_view(batch, config.normalise, run.float_type)
            batches.append(
                {**batch, "slices": embed(pixels, real).cpu(), "on_host": {**batch["on_host"], "real": real.numpy()}}
            )
        return batches

    def fill(cached):
        """Embeds views of all volumes, two a pass, on every process those that it reads."""
        for turn in range(config.cached_views // 2):
            once = once_loader(volumes, collate_volumes, workers=config.workers, turn=turn, **dealt)
            for batch in run.evaluate(once, what=f"views {2 * turn + 1} and {2 * turn + 2} of {config.cached_views}"):
                view = two_views(batch, config.seed, config.view_policy, config.normalise, run.float_type)
                cached.write(batch["on_host"]["index"], batch["on_host"]["count"], 2 * turn, embed(view.pixels, view.real))

    def two_embedded_views(batch):
        """Slice embeddings (2B, N, D) of two views of each volume, and which slices are real (2B, N)."""
        if config.cached_views:
            return batch["slices"].to(run.float_type), torch.from_numpy(batch["on_host"]["real"])
        view = two_views(batch, config.seed, config.view_policy, config.normalise, run.float_type)
        run.show(partial(middle_slices, view))
        return embed(view.pixels, view.real), view.real

    def score(batches):
        """R² on whole volumes, each with a mask that no training step uses; their embeddings, without masks, are shown."""
        tally = MaskedScore()
        for batch in run.evaluate(batches):
            targets, real = batch["slices"], torch.from_numpy(batch["on_host"]["real"])
            masked = draw_mask(mask_draws(batch, config.seed, real.shape[1], views=1), real, config.mask_ratio)
            guess = interpolate_neighbours(targets, real, masked)
            tally.add(model(targets, real, masked), targets, guess, masked)
            with autocast(run.dtype, run.device):
                run.show(None, embed_whole(batch), [number_of[chosen[index]] for index in batch["on_host"]["index"]])
        return tally.compute()

    def embed_whole(batch):
        """Whole volumes, as `evaluate_embeddings.py` embeds them."""
        real = torch.from_numpy(batch["on_host"]["real"])
        return volume_embedding(model.volume_encoder(batch["slices"], real), real)

    # f_intra's map to D is made here, once: stage 3 goes on with it
    if config.slice_embedding == "published":
        draw_published_map(slice_encoder, config.seed)
    else:
        set_map(slice_encoder, mean_features(), config.seed)
    whole, labelled = remembered(plain), labelled_volumes(config, run.find)
    labelled = labelled and replace(labelled, loader=remembered(labelled.loader))
    cached = None
    for _epoch in run.epochs():
        if config.cached_views and not cached:
            size = len(volumes), config.cached_views, config.target_shape[0], config.d_model
            cached = CachedViews(run.scratch("cached_views", CachedViews.file_size(*size)), *size, config.seed)
            fill(cached)
            run.wait_for_all()
            loader = epoch_loader(cached, collate_cached, seed=config.seed, workers=0, what="volumes", **dealt)

        for batch in run.batches(loader):
            targets, real = two_embedded_views(batch)
            targets, real = targets.repeat(config.masks_per_view, 1, 1), real.repeat(config.masks_per_view, 1)
            draws = mask_draws(batch, config.seed, real.shape[1], views=2 * config.masks_per_view, one_for_both=published)
            masked = draw_mask(draws, real, config.mask_ratio)

            predictions = network(targets, real, masked)
            if published:
                loss = published_mask_loss(predictions, targets, config.mask_ratio)
            else:
                loss = masked_slice_loss(predictions, targets, masked)
            run.update(loss)
        run.log(**score(whole))
        run.probe(labelled, embed_whole)
    state = {f"slice_encoder.{k}": v for k, v in slice_encoder.state_dict().items()}
    run.finish("mask", method, state | {f"masked.{k}": v for k, v in model.state_dict().items()})
    return model


if __name__ == "__main__":
    launch(MaskConfig, main)
