"""Checkpoints of VISSL: the ResNet inside them, by torchvision's names."""

BLOCKS = "_feature_blocks."


def from_vissl(content: dict) -> dict | None:
    """The parts of `Weights` of a VISSL checkpoint in either layout, or of its trunk alone; None for anything else."""
    trunk, heads = content, {}
    if isinstance(content.get("classy_state_dict"), dict):
        model = content["classy_state_dict"]["base_model"]["model"]
        trunk, heads = model["trunk"], model["heads"]
    elif isinstance(content.get("model_state_dict"), dict):
        trunk = content["model_state_dict"]
    if not any(str(name).startswith(BLOCKS) for name in trunk):
        return None
    state = {name.removeprefix(BLOCKS): value for name, value in trunk.items()}
    return {"origin": "VISSL", "stage": "image", "state": state, "heads": heads}
