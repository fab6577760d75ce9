"""VISSL's checkpoints and ours: the same tensors by other names.

A checkpoint is nested dictionaries: trunk and heads stand under `classy_state_dict.base_model.model`, DeepClusterV2's centroids
in the state of the `loss`. Older files have the trunk under `model_state_dict`, extracted ones are the trunk itself.
"""

import torch

BLOCKS = "_feature_blocks."
# under this name our own checkpoints in VISSL's layout keep what the weight file says of itself; VISSL passes it over
OURS = "joint_ssl"
CENTROIDS, PROTOTYPES = "centroids", "prototypes.heads."
SWAV = {"0.projection_head.": "head.layers."}


def from_vissl(content: dict) -> dict | None:
    """The parts of `Weights` of a VISSL checkpoint in either layout, or of its trunk alone; None for anything else."""
    trunk, heads, loss = content, {}, {}
    if isinstance(content.get("classy_state_dict"), dict):
        model = content["classy_state_dict"].get("base_model", {}).get("model", {})
        trunk, heads, loss = model.get("trunk", {}), model.get("heads", {}), content.get("loss", {})
    elif isinstance(content.get("model_state_dict"), dict):
        trunk = content["model_state_dict"]
    if not any(str(name).startswith(BLOCKS) for name in trunk):
        return None
    method = _method(heads, loss)
    about = content[OURS] if isinstance(content.get(OURS), dict) else {}
    return {
        "origin": "VISSL",
        "stage": "image",
        "state": {name.removeprefix(BLOCKS): value for name, value in trunk.items()},
        "method": about.get("method", method),
        "config": about.get("config", {"normalise": "imagenet"}),
        "heads": _heads(method, heads, loss),
        "about": about,
    }


def to_vissl(
    state: dict[str, torch.Tensor], heads: dict[str, torch.Tensor], method: str, phase: int, steps: int, about: dict
) -> dict:
    """VISSL's checkpoint of a ResNet by torchvision's names and the heads of `ImageModel` ("swav" or "deepcluster").

    phase: the number of the last epoch, from 0; steps: of an epoch. DeepClusterV2's bank is left out: VISSL starts from such a
    file, but does not go on with its optimiser.
    """
    names = SWAV if method == "swav" else _deepcluster_names("head.layers.3.weight" in heads)
    prototypes = {int(n.removeprefix(PROTOTYPES)): v for n, v in heads.items() if n.startswith(PROTOTYPES)}
    theirs = {
        prefix + name.removeprefix(ours): value
        for prefix, ours in names.items()
        for name, value in heads.items()
        if name.startswith(ours)
    }
    iteration = (phase + 1) * steps
    if method == "swav":
        theirs |= {f"0.prototypes{number}.weight": value for number, value in prototypes.items()}
        loss = {"swav_criterion.num_iteration": torch.tensor([iteration])}
    else:
        loss = {f"{CENTROIDS}{number}": value for number, value in prototypes.items()}
    model = {"trunk": {BLOCKS + name: value for name, value in state.items()}, "heads": theirs}
    phases = {"phase_idx": phase, "train_phase_idx": phase}
    base_model = {"model": model, "meta": {"trunk": {}, "heads": []}}
    return {
        **phases,
        "iteration": iteration,
        "iteration_num": iteration + phase,  # VISSL counts the start of each phase, too, and from -1
        "loss": loss,
        "classy_state_dict": {"train": True, **phases, "base_model": base_model},
        "type": "consolidated",
        OURS: about,
    }


def _method(heads: dict, loss: dict) -> str:
    """By names alone. The multilayer perceptron of DeepClusterV2 is that of other methods, too; the centroids are its own."""
    if "0.prototypes0.weight" in heads and "0.projection_head.0.weight" in heads:
        return "swav"
    if {"0.clf.0.weight", "1.clf.0.weight"} <= heads.keys() and f"{CENTROIDS}0" in loss:
        return "deepcluster"
    return "unknown"


def _heads(method: str, heads: dict, loss: dict) -> dict:
    """Their heads by our names; of a method that is not ours, none."""
    if method == "unknown":
        return {}
    names = SWAV if method == "swav" else _deepcluster_names("0.clf.1.running_mean" in heads)
    ours = {
        prefix + name.removeprefix(theirs): value
        for theirs, prefix in names.items()
        for name, value in heads.items()
        if name.startswith(theirs)
    }
    if method == "swav":
        rows = {n.removeprefix("0.prototypes").removesuffix(".weight"): v for n, v in heads.items() if "prototypes" in n}
    else:
        rows = {name.removeprefix(CENTROIDS): value for name, value in loss.items() if name.startswith(CENTROIDS)}
    return ours | {PROTOTYPES + number: value for number, value in rows.items()}


def _deepcluster_names(batchnorm: bool) -> dict[str, str]:
    """The two heads of one layer each that VISSL puts one after the other."""
    norm = {"0.clf.1.": "head.layers.1."} if batchnorm else {}
    return {"0.clf.0.": "head.layers.0.", **norm, "1.clf.0.": "head.layers.3." if batchnorm else "head.layers.2."}
