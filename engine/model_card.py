"""A page for people about a weight file: what it is, what it learned from, with which constants, from which files."""

import math

import yaml

PARTS = {"image": "The ResNet of f_intra", "mask": "f_intra, f_inter, token, decoder", "joint": "f_intra, f_inter, heads"}


def model_card(name: str, about: dict, tensors: dict, digest: str) -> str:
    """Markdown from what the file says of itself (`about`), its tensors, and its SHA-256."""
    numbers = sum(math.prod(tensor.shape) for tensor in tensors.values())
    config, data = about.get("config") or {}, about.get("data") or []
    parts = [
        "---\ntags: [medical-imaging, self-supervised-learning]\n---",
        f"# {name}",
        f"{PARTS[about['stage']]}, pretrained without labels by joint 2D-3D self-supervised learning; method: "
        f"{about['method']}. {len(tensors)} tensors, {numbers:,} numbers. Not for clinical use.",
        '```python\nfrom joint_ssl import load_model\nmodel = load_model("' + name + '")\n```',
        "## Data",
        "\n".join(_data_line(one) for one in data) or _folders(config) or "The file does not say what it learned from.",
        "## Configuration",
        "```yaml\n" + yaml.safe_dump(config, sort_keys=False).strip() + "\n```" if config else "The file does not say.",
        "## Hashes (SHA-256)",
        "\n".join([f"* `{name}`: {digest}", *(f"* started from `{k}`: {v}" for k, v in about.get("inputs", {}).items())]),
    ]
    return "\n\n".join(parts) + "\n"


def _data_line(data: dict) -> str:
    collections = ", ".join(f"{name or '(root)'} {count}" for name, count in data["collections"].items())
    return f"* {data['items']} {data['what']} ({collections}); SHA-256 of their sorted names: {data['names']}"


def _folders(config: dict) -> str:
    named = {name: config[name] for name in ("data_path", "image_path", "volume_path") if config.get(name)}
    return "\n".join(f"* --{name} {path}" for name, path in named.items())
