"""Runs the six scripts on one process and notes where a step would make the host wait for a GPU. `host_waits.py DATA`.

On a CPU nothing waits, so what would lie on a GPU is marked: the tensors of a batch, the parameters, and all that is computed
of them. A wait is an operation whose result, or its size, the host must know: reading a number, choosing by a mask.
"""

import importlib
import sys
import traceback
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

sys.path.insert(0, str(Path(__file__).parents[2]))

import engine.run
from engine.config import parse
from tests.scripts.six_scripts import COMMON, script_flags

READING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "equal",
    "_unique2",
    "unique_dim",
    "repeat_interleave",
)


class Waits(TorchDispatchMode):
    """`found`: the lines of the project at which a marked tensor is read."""

    def __init__(self):
        super().__init__()
        self.marked, self.found = WeakIdKeyDictionary(), set()

    def mark(self, things) -> None:
        for thing in tree_flatten(things)[0]:
            if isinstance(thing, torch.Tensor):
                self.marked[thing] = True

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = tree_flatten((args, kwargs or {}))[0]
        marked = [thing for thing in given if isinstance(thing, torch.Tensor) and thing in self.marked]
        made = function(*args, **(kwargs or {}))
        if marked:
            name = function.name().removeprefix("aten::").split(".")[0]
            by_mask = name.startswith("index") and any(
                isinstance(thing, torch.Tensor) and thing.dtype == torch.bool for thing in tree_flatten(args[1:2])[0]
            )
            if name in READING or by_mask:
                root = str(Path(__file__).parents[2])
                # the last frame is this one
                ours = [f for f in traceback.extract_stack() if f.filename.startswith(root) and ".venv" not in f.filename]
                self.found.add(f"{ours[-2].filename.removeprefix(root + '/')}:{ours[-2].lineno} {name}: {ours[-2].line}")
            self.mark(made)
        return made


def main(data: str) -> None:
    waits = Waits()
    batches, engine.run.LOG_EVERY = engine.run.Run.batches, 10**9

    def watched(run, *loaders):
        waits.mark([list(run.model.parameters()), list(run.model.buffers())])
        for batch in batches(run, *loaders):
            waits.mark(batch)
            with waits:
                yield batch

    engine.run.Run.batches = watched
    for method in ("swav", "deepcluster"):
        for stage, name in [("2D", f"ssl_{method}_2D"), ("mask", f"mask_{method}_3D"), ("3D", f"ssl_{method}_3D")]:
            script = importlib.import_module(name)
            config_class = next(v for k, v in vars(script).items() if k.endswith("Config") and v.__module__ == name)
            config = parse(config_class, [*COMMON, *script_flags(method, stage, Path(data), "4")])
            script.main(config, method) if stage == "mask" else script.main(config)
            print(f"{name}: {sorted(waits.found)}")
            waits.found.clear()
    known = torch.ones(3)
    waits.mark(known)
    with waits:
        print(f"control: {known[known * 2 > 1].sum().item()} {len(waits.found)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
