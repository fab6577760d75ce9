"""Which values the constants of a script may have, by their names. Names that a script does not have are passed over."""

import dataclasses

from .errors import UserError

ABOVE_ZERO = """epochs batch_size image_batch_size base_lr checkpoint_freq target_shape d_model temperature epsilon
    sinkhorn_iterations kmeans_iterations bank_slices_per_volume nmb_prototypes nmb_slice_prototypes nmb_crops size_crops
    masks_per_view scored_volumes neighbours nproc channels timeout_minutes slice_step least_slices score_every epoch_steps
    surface_tolerance side proposals image_size nearest steps jobs""".split()
NOT_BELOW_ZERO = """final_lr start_warmup clip_grad wd warmup_epochs workers probed_files queue_length slice_queue_length
    epoch_queue_starts freeze_prototypes_niters intra_weight mask_weight cached_views checkpoint_minutes
    processes largest least_content spacing pretrained_rate labelled dice_weight queries
    channel""".split()
STRIDE = 32  # pixels that make one of a ResNet's deepest maps
SHARES = "mask_ratio min_scale_crops max_scale_crops image_min_scale".split()  # above 0, at most 1
RULES = [
    (ABOVE_ZERO, lambda value: value > 0, "above 0"),
    (NOT_BELOW_ZERO, lambda value: value >= 0, "0 or above"),
    (SHARES, lambda value: 0 < value <= 1, "above 0 and at most 1"),
    (["dropout", "scale_jitter", "intensity_jitter", "least_score"], lambda value: 0 <= value < 1, "0 or above and below 1"),
    (["filled_share"], lambda value: 0 <= value <= 1, "at least 0 and at most 1"),
    (["cached_views"], lambda value: value % 2 == 0, "even, as two views go with each other"),
    (["d_model"], lambda value: value % 8 == 0, "a multiple of 8, the heads of the attention"),
]


def refuse_impossible(config) -> None:
    """Raises `UserError` when a constant has a value, or a number of values, that nothing can be computed with."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    for names, allowed, what in RULES:
        for name in names:
            given = values.get(name, "auto")
            numbers = () if isinstance(given, str) else given if isinstance(given, tuple) else (given,)
            if given == () or not all(allowed(number) for number in numbers):
                said = " ".join(map(str, numbers)) or "without a value"
                raise UserError(f"--{name} is {said}; it must be {what}.")
    if "nmb_crops" in values:
        _refuse_crops(config)
    if values.get("attention") == "features" and values["fit"] != "crop":
        raise UserError("--attention features needs the same number of slices in every volume; use it with --fit crop.")
    if "filled_share" in values:
        _refuse_planes(config)
    seeds = values.get("seeds", ())
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {' '.join(map(str, seeds))} names a seed twice; a second run of it would be no other one.")
    if values.get("resnet_pretrained") and values.get("start_from") == "":
        raise UserError(
            f"--resnet_pretrained {values['resnet_pretrained']} only completes a file that --start_from names; name it with "
            "--start_from itself."
        )
    if values.get("pretrained_rate", 1.0) != 1.0 and values.get("start_from") == "":
        raise UserError("--pretrained_rate is that of weights which --start_from names; name them, or leave it out.")
    if values.get("masking") == "published" and not int(values["mask_ratio"] * values["target_shape"][0]):
        raise UserError("--masking published divides by int(mask_ratio * slices), which is 0; raise --mask_ratio.")


def _refuse_planes(config) -> None:
    for name, word in (("image_size", "auto"), ("crop_size", "all")):
        size = getattr(config, name)
        if size != word and any(side % STRIDE or side < STRIDE for side in size):
            raise UserError(f"--{name} is {' '.join(map(str, size))}; it must be a multiple of {STRIDE}, or {word}.")
    if config.slices_per_volume != "auto" and not 0 < config.slices_per_volume <= config.batch_size:
        raise UserError(
            f"--slices_per_volume {config.slices_per_volume} is more than --batch_size {config.batch_size}, or less than 1; "
            "give one between."
        )
    if config.slices_per_volume != "auto" and config.batch_size % config.slices_per_volume:
        raise UserError(
            f"--slices_per_volume {config.slices_per_volume} does not divide --batch_size {config.batch_size}, so that steps "
            "would see fewer slices; give one that does."
        )


def _refuse_crops(config) -> None:
    sizes = len(config.size_crops)
    if len(config.nmb_crops) != sizes:
        raise UserError(
            f"--nmb_crops has {len(config.nmb_crops)} values and --size_crops {sizes}; give one of each a size of crops."
        )
    for name in ("min_scale_crops", "max_scale_crops"):
        if len(getattr(config, name)) < sizes:
            raise UserError(f"--{name} has {len(getattr(config, name))} values for {sizes} sizes of crops; give one for each.")
    if config.nmb_crops[0] < 2:
        raise UserError("--nmb_crops begins with 1; two crops of the first size, at least, are compared with each other.")
