"""Ranks, devices and precision: decided once, from what the launcher set in the environment."""

import contextlib
import ctypes
import datetime
import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from .errors import UserError
from .meeting import fresh_store

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


@dataclass(frozen=True)
class Process:
    """This process among its group: `rank` of `world`, the `local` one of its machine, computing on `device`."""

    rank: int
    world: int
    local: int
    device: torch.device


def join_group(timeout_minutes: float = 30.0) -> Process:
    """Joins the process group of torchrun, torch.distributed.launch or SLURM; a plain `python` is a group of one.

    CUDA processes talk over NCCL, others over gloo; several processes on one CPU share its cores. A process that does not
    answer the others for `timeout_minutes` ends them all.
    """
    env = os.environ
    if "RANK" not in env and int(env.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in env:
        env.update(RANK=env["SLURM_PROCID"], WORLD_SIZE=env["SLURM_NTASKS"], LOCAL_RANK=env["SLURM_LOCALID"])
        if "MASTER_ADDR" not in env or "MASTER_PORT" not in env:
            raise UserError("Under SLURM, MASTER_ADDR and MASTER_PORT must be exported: the first node's name and a free port.")
    rank, world, local = (int(env.get(name, default)) for name, default in [("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)])
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        keep_freed_memory()
    if device.type == "cpu" and world > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(env.get("LOCAL_WORLD_SIZE", world))))
    if world > 1 and not dist.is_initialized():
        timeout = datetime.timedelta(minutes=timeout_minutes)
        store, backend = fresh_store(rank, world, timeout), "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    return Process(rank, world, local, device)


def keep_freed_memory(keep: bool = True) -> None:
    """Lets the C library keep large blocks that are freed, for the next ones: new pages cost more than many a computation.

    keep: False goes back to its usual limits of 32 and 64 MiB. On other systems than Linux with glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30 if keep else 2**25)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30 if keep else 2**26)


def leave_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def mean_over_ranks(values: torch.Tensor) -> list[float]:
    """The mean of a vector over all processes. Collective."""
    if not dist.is_initialized():
        return values.tolist()
    total = values.clone()
    dist.all_reduce(total)
    return (total / dist.get_world_size()).tolist()


def gather_each(value: torch.Tensor) -> torch.Tensor:
    """(R, ...): the tensor of every process, all of one shape. Collective."""
    if not dist.is_initialized():
        return value[None]
    each = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(each, value.contiguous())
    return torch.stack(each)


def own_share(gathered: torch.Tensor) -> torch.Tensor:
    """Of what `gather_each` gave, this process's part; where there are now more or fewer processes, the first has all."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if len(gathered) == world:
        return gathered[rank]
    return gathered.sum(0) if rank == 0 else torch.zeros_like(gathered[0])


def gather_objects(value: object) -> list:
    """The `value` of every process, in their order. Collective."""
    if not dist.is_initialized():
        return [value]
    each = [None] * dist.get_world_size()
    dist.all_gather_object(each, value)
    return each


def gather_lists(own: list) -> list:
    """The lists of all processes as one, in their order. Collective."""
    return list(itertools.chain.from_iterable(gather_objects(own)))


def of_first(make) -> object:
    """What `make()` gives on the first process, on all; or an error for people that it raises there, on all. Collective."""
    if not dist.is_initialized():
        return make()
    made = [None, None]
    if dist.get_rank() == 0:
        try:
            made = [make(), None]
        except ValueError as error:
            if not hasattr(error, "exit_code"):
                raise
            made = [None, error]
    dist.broadcast_object_list(made)
    if made[1]:
        raise made[1]
    return made[0]


def raise_together(sentence: str | None) -> None:
    """Raises `UserError` on all processes when one of them has a complaint, with the first one's. Collective."""
    told = f"process {dist.get_rank()} on {socket.gethostname()}: {sentence}" if dist.is_initialized() else sentence
    complaints = [complaint for complaint in gather_objects(sentence and told) if complaint]
    if complaints:
        raise UserError(complaints[0])


def refuse_unequal(value: object, sentence: str) -> None:
    """Raises `UserError` with `sentence` on all processes when the `value` of one is not that of the first. Collective."""
    if dist.is_initialized():
        raise_together(None if of_first(lambda: value) == value else sentence)


def computing_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type in which the networks multiply; `auto` is bf16 where the processor has it, else fp32."""
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        precision = "bf16" if fast else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}[precision]


def autocast(dtype: torch.dtype, device: torch.device):
    """The autocast context of a forward pass; none for fp32 and fp64."""
    if dtype in (torch.float32, torch.float64):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def autocast_forward(forward, dtype: torch.dtype, device: torch.device):
    """`forward` under autocast; its floating-point results stay in the type that they were computed in."""

    def wrapped(*args, **kwargs):
        with autocast(dtype, device):
            return forward(*args, **kwargs)

    return wrapped


def to_device(batch: dict | None, device: torch.device) -> dict | None:
    """The batch with its tensors, also those in lists, on the device; what is no tensor stays on the host."""
    if batch is None:
        return None
    move = lambda x: x.to(device, non_blocking=True) if isinstance(x, torch.Tensor) else x  # noqa: E731
    return {k: [move(x) for x in v] if isinstance(v, list) else move(v) for k, v in batch.items()}


def batches_of(loaders: Sequence, device: torch.device) -> Iterator:
    """The next batch of each loader, on the device, until one ends (alone, when there is one loader).

    A loader that is None gives None beside the others' batches. An error is marked as that of one rank.
    """
    iterators = [itertools.repeat(None) if loader is None else iter(loader) for loader in loaders]
    while True:
        try:
            batches = [to_device(next(iterator), device) for iterator in iterators]
        except StopIteration:
            return
        except Exception as error:
            error.of_one_rank = True  # the other ranks read other files
            raise
        yield batches[0] if len(batches) == 1 else batches
