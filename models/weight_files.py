"""Reading weight files of any origin: this project's, the published ones, VISSL's, plain ResNets, safetensors.

Nothing in a file is run, and headers are looked at before anything is allocated. What a file is shows in its names and shapes.
"""

import contextlib
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file

from .errors import WeightsError
from .released import from_released
from .vissl import from_vissl

STAGES = {"image": "stage 1 (ssl_*_2D.py)", "mask": "stage 2 (mask_*_3D.py)", "joint": "stage 3 (ssl_*_3D.py)"}
DOWNSTREAM = ("segmentation", "classification", "detection")
FORMAT_VERSION = 1
# where a flat file of this project keeps what else it knows of itself: under this name in the state dict's `_metadata`
OURS = "joint_ssl"
# published checkpoints hold their learning rate as a number of numpy's, which an old numpy wrote under another name
SCALARS = [
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bBhHiIlLqQefd"},
    np._core.multiarray.scalar,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
]


@dataclass
class Weights:
    """Tensors of one stage, by this project's names.

    stage "image": a ResNet by torchvision's names; "mask" and "joint": `slice_encoder.…` and `masked.…`, "joint" also heads.
    config: the constants that the networks depend on; heads: those of stage 1 (`head.…`, `prototypes.…`), where there are any.
    """

    path: Path
    origin: str  # "this project", "published", "VISSL", "a plain ResNet"
    stage: str
    state: dict[str, torch.Tensor]
    method: str = "unknown"  # "swav", "deepcluster", or what no name or shape tells
    config: dict = field(default_factory=dict)
    heads: dict[str, torch.Tensor] = field(default_factory=dict)
    about: dict = field(default_factory=dict)  # what else a file of this project says of itself

    def __str__(self) -> str:
        return f"{self.path} ({self.origin}, {STAGES[self.stage].split(' (')[0]}, method {self.method})"


def read_weights(path: str | Path) -> Weights:
    """What a weight file holds. Raises `WeightsError` when there is no such file, or it holds no weights that are known."""
    path = Path(path)
    content, about = read_content(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds a {type(content).__name__}, no weights; give a file of tensors by name.")
    with understood(path):
        weights = _recognised(path, content, about)
    if weights is None:
        raise WeightsError(
            f"{path} holds no weights that are known; give a file of this project or the published one, a checkpoint of "
            "VISSL, or a ResNet by torchvision's names (torchvision, timm)."
        )
    for name, value in {**weights.state, **weights.heads}.items():
        fault = _fault(name, value)
        if fault:
            raise WeightsError(f"{path} holds {fault} under {name}; replace it.")
    return weights


@contextlib.contextmanager
def understood(path: Path):
    """What goes wrong inside, in a file whose parts are not what their names say, becomes one sentence that names the file."""
    try:
        yield
    except WeightsError:  # which is a ValueError, too
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is laid out as no file that is known ({_reason(error)}); replace it.") from None


def _recognised(path: Path, content: dict, about: dict) -> Weights | None:
    if isinstance(content.get("stage"), str) and content["stage"] in DOWNSTREAM:
        raise WeightsError(
            f"{path} is from finetune_{content['stage']}.py; give pretrained weights here (predict.py takes the former)."
        )
    if isinstance(content.get("stage"), str) and content["stage"] in STAGES and isinstance(content.get("model"), dict):
        content, about = content["model"], {k: v for k, v in content.items() if k != "model"}
    if about:
        return _of_this_project(path, content, about)
    found = from_vissl(content) or from_released(content) or _plain_resnet(content)
    return found and Weights(path, **found)


def _fault(name: str, value) -> str:
    """What makes a value no tensor of weights, in words; "" for one that is."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return "no plain tensor"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "a tensor that is larger than what is stored of it"
    if name.endswith("num_batches_tracked"):
        return "" if value.dtype == torch.int64 else f"{value.dtype} numbers"
    if not value.is_floating_point():
        return f"{value.dtype} numbers"
    return "" if value.isfinite().all() else "NaN or infinite values"


def architecture(state: dict[str, torch.Tensor]) -> str:
    """Which ResNet a flat state dict is of, by its blocks."""
    blocks = [len({name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)]
    deep = "layer1.0.conv3.weight" in state
    kinds = {(False, 8): "resnet18", (False, 16): "resnet34", (True, 16): "resnet50", (True, 33): "resnet101"}
    return kinds.get((deep, sum(blocks)), f"network of {sum(blocks)} blocks")


def read_content(path: Path) -> tuple[object, dict]:
    """The unpickled content, or the tensors, of a file; and what it says of itself beside them.

    Raises `WeightsError` when there is no such file, or it cannot be read without running what is in it.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; name the weight file in it.")
    if not path.is_file():
        raise WeightsError(
            f"{path} is missing; train the stage that writes it, put a released file there, or give the path of another (flags "
            "of scripts: --pretrained_path, --resnet_pretrained, --trans_pretrained, --start_from; of evaluations and "
            "predictions: --weights). run_pipeline.py writes into runs/<name>/weights."
        )
    try:
        with open(path, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); look at its permissions.") from None
    _refuse_other_files(path, start)
    try:
        if start[8:9] == b"{":
            return _safetensors(path)
        _refuse_packed(path, start)
        with torch.serialization.safe_globals(SCALARS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{path} is no weight file that can be read ({_reason(error)}); replace it.") from None
    return content, _mapping(_mapping(getattr(content, "_metadata", None)).get(OURS))


def _mapping(value) -> dict:
    """What a stranger may have put there, if it is of the kind that belongs there."""
    return value if isinstance(value, dict) else {}


def _refuse_other_files(path: Path, start: bytes) -> None:
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(f"{path} is a web page, not weights; the download went wrong, so fetch the file itself again.")
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{path} is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`.")
    if not start:
        raise WeightsError(f"{path} is empty; replace it.")
    if not (start.startswith((b"PK", b"\x80")) or start[8:9] == b"{"):
        raise WeightsError(f"{path} begins as neither a PyTorch nor a safetensors file does; it holds no weights.")


def _refuse_packed(path: Path, start: bytes) -> None:
    """torch stores tensors as they are, and unpacks what was packed before anybody has seen its size."""
    if start.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise WeightsError(f"{path} holds packed tensors, which torch does not write; it may be made to fill the memory.")


def _safetensors(path: Path) -> tuple[dict, dict]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), _mapping(json.loads(metadata.get(OURS, "{}")))
    except (safetensors.SafetensorError, ValueError) as error:
        raise WeightsError(f"{path} is no safetensors file that can be read ({_reason(error)}); replace it.") from None


def _reason(error: Exception) -> str:
    text = str(error)
    if "weights_only" in text or "Unsupported" in text or "GLOBAL" in text:
        return "it holds objects other than tensors and numbers, which could run code"
    if isinstance(error, (OSError, EOFError, zipfile.BadZipFile)) or "central directory" in text or "truncated" in text:
        return "it is cut off or damaged"
    return (text.strip().split("\n")[0] or type(error).__name__)[:160]


def _of_this_project(path: Path, state: dict, about: dict) -> Weights:
    if about.get("format_version", 0) > FORMAT_VERSION:
        raise WeightsError(f"{path} was written by a newer version (format {about['format_version']}); update this one.")
    heads = {name: value for name, value in state.items() if name.startswith(("head.", "prototypes.")) and _is_flat(state)}
    state = {name: value for name, value in state.items() if name not in heads}
    stage, method, config = about["stage"], about["method"], about["config"]
    if stage not in STAGES or not isinstance(config, dict):
        raise ValueError(f"stage {stage}, configuration {type(config).__name__}")
    return Weights(path, "this project", stage, state, method, config, heads, about)


def _is_flat(state: dict) -> bool:
    return "conv1.weight" in state


def _plain_resnet(content: dict) -> dict | None:
    """A state dict by the names of torchvision, timm and the published stage 1, bare or in a checkpoint."""
    for held in (content, content.get("state_dict"), content.get("model")):
        if isinstance(held, dict):
            state = {str(name).removeprefix("module."): value for name, value in held.items()}
            if _is_flat(state):
                return {"origin": "a plain ResNet", "stage": "image", "state": state}
    return None
