"""f_intra, forward and backward, against the same ResNet as it comes: fp32, three equal channels, torch's own memory order."""

import torch
from measure import Case

from engine.processes import autocast, computing_dtype
from models.slice_encoder import SliceEncoder

CPU = torch.device("cpu")


def cases(quick: bool):
    arch, batch, side = ("resnet18", 4, 64) if quick else ("resnet50", 64, 128)
    slices = torch.randn(batch, 1, side, side, generator=torch.Generator().manual_seed(0))
    ours, plain = SliceEncoder(arch), SliceEncoder(arch)
    plain.load_state_dict(ours.state_dict())
    ours.to(memory_format=torch.channels_last)
    dtype = computing_dtype("auto", CPU)

    def fast():
        with autocast(dtype, CPU):
            embedded = ours(slices.contiguous(memory_format=torch.channels_last))
        ours.zero_grad()
        embedded.square().mean().backward()

    def slow():
        plain.zero_grad()
        plain(slices.expand(-1, 3, -1, -1)).square().mean().backward()

    def agree():
        with torch.no_grad(), autocast(dtype, CPU):
            a, b = ours.eval()(slices), plain.eval()(slices.expand(-1, 3, -1, -1))
        assert torch.nn.functional.cosine_similarity(a, b).min() > 0.99
        ours.train(), plain.train()

    promise = (2.2 if dtype == torch.bfloat16 else 1.2) * (not quick)
    name = f"encoder step, {str(dtype).removeprefix('torch.')}, one channel, channels last"
    yield Case(name, f"{arch}, {batch} × {side}²", fast, slow, "plain fp32", promise, agree, batch, "slice")
