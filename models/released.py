"""The names of the published checkpoints, and ours: the same tensors, for the same functions.

`mask_{deepcluster,swav}.pth` and `{deepcluster,swav}3D.pth` are {"epoch", "state_dict", "optimizer"}; every name starts with
`module.`. The map to D is a transposed convolution there, so that its matrix lies the other way round.
"""

import torch

# what the published networks are, beside what shapes tell
PUBLISHED = {
    "attention": "features",
    "slice_embedding": "published",
    "masking": "published",
    "scores": "dot",
    "normalise": "none",
    "fit": "crop",
}
MASK = {"mask_token": "masked.token", "encoder.encoder.": "masked.volume_encoder.", "decoder.": "masked.decoder."}
JOINT = {
    "intra.deconv.": "slice_encoder.to_embedding.",
    "intra.": "slice_encoder.resnet.",
    "inter.encoder.": "masked.volume_encoder.",
    "prototypes.prototypes": "prototypes.volumes.heads.",
}
HEADS = 8
# the numbers of prototypes by which the two published scripts can be told from each other
METHODS = {(4, 4, 4): "deepcluster", (3000,): "swav"}


def from_released(content: dict) -> dict | None:
    """The parts of `Weights` of a published checkpoint of stage 2 or 3 (or of its bare state dict); None for anything else."""
    state = content.get("state_dict", content)
    if not isinstance(state, dict):
        return None
    state = {str(name).removeprefix("module."): value for name, value in state.items()}
    for stage, names, sign in [("mask", MASK, "mask_token"), ("joint", JOINT, "intra.conv1.weight")]:
        if sign in state and any("encoder.layers.0.attention." in name for name in state):
            ours = {_ours(name, names): value for name, value in state.items()}
            return {
                "origin": "published",
                "stage": stage,
                "state": {name: _turned(name, value) for name, value in ours.items()},
                "method": _method(ours),
                "config": {**PUBLISHED, **_sizes(ours)},
            }
    return None


def to_released(stage: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors of stage "mask" or "joint" by published names; those that a published file has no place for are left out."""
    names = MASK if stage == "mask" else JOINT
    out = {}
    for theirs, ours in names.items():
        for name, value in state.items():
            if name.startswith(ours):
                end = name.removeprefix(ours)
                end = f"{end}.weight" if theirs.startswith("prototypes.") else end
                out["module." + theirs + end] = _turned(name, value, back=True)
    return out


def _ours(name: str, names: dict[str, str]) -> str:
    for theirs, ours in names.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            return name.removesuffix(".weight") if ours.startswith("prototypes.") else name
    return name


def _turned(name: str, value, back: bool = False):
    """The map's matrix: (D, features) here, (features, D, 1) there."""
    if name != "slice_encoder.to_embedding.weight":
        return value
    if back:
        return value.T[:, :, None].contiguous()
    if value.ndim != 3 or value.shape[2] != 1:
        raise ValueError(f"the map to D has the shape {tuple(value.shape)}")
    return value[:, :, 0].T.contiguous()


def _sizes(state: dict) -> dict:
    """What the shapes of f_inter tell: D, and the number of slices that it is bound to."""
    out = state["masked.volume_encoder.layers.0.attention.to_out.weight"].shape[0]
    width = state["masked.volume_encoder.layers.0.norm1.weight"].shape[0]
    if out % HEADS:
        raise ValueError(f"f_inter is bound to {out} slices, no multiple of its {HEADS} heads")
    return {"d_model": width, "target_shape": [out, 128, 128]}


def _method(state: dict) -> str:
    heads = sorted(name for name in state if name.startswith("prototypes.volumes.heads."))
    return METHODS.get(tuple(state[name].shape[0] for name in heads), "unknown")
