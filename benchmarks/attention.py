"""Deformable attention, forward and backward, against the library `deformable-attention`, along slices and along features."""

import contextlib
import functools

import torch
from deformable_attention import DeformableAttention1D
from measure import Case

from models.attention import DeformableAttention


def cases(quick: bool):
    batch, slices, embedding_dim = (2, 32, 128) if quick else (4, 64, 640)
    for along, items, channels in (("slices", slices, embedding_dim), ("features", embedding_dim, slices)):
        ours, peer = both(channels)
        x, out_gradient = torch.randn(2, batch, items, channels, generator=torch.Generator().manual_seed(0)).unbind()
        of_library = functools.partial(library_gradients, peer, x, out_gradient)
        for precision, promise, tolerance in (("fp32", 1.0, 1e-4), ("bf16", 2.5, 0.1)):
            call = functools.partial(gradients, ours, x, out_gradient, precision)
            yield Case(
                f"attention along {along}, {precision}", f"{batch} × {items} × {channels}", call, of_library,
                "deformable-attention, fp32", 0.0 if quick else promise, functools.partial(agree, call, of_library, tolerance),
            )  # fmt: skip


def both(channels: int) -> tuple[DeformableAttention, DeformableAttention1D]:
    """Ours and the library's with the same weights and the same number of keys."""
    torch.manual_seed(0)
    library = DeformableAttention1D(dim=channels, downsample_factor=4, offset_scale=2, offset_kernel_size=6)
    ours = DeformableAttention(channels, least_keys=1)
    ours.load_state_dict(library.state_dict())
    return ours, library


def gradients(attention, x, out_gradient, precision: str = "fp32") -> dict[str, torch.Tensor]:
    """x, out_gradient (B, N, C) → the output, and the gradients of the input and of every parameter."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
        out = attention(x)
    names, parameters = zip(*attention.named_parameters())
    return {"output": out} | dict(
        zip(("input", *names), torch.autograd.grad(out, (x, *parameters), out_gradient.to(out.dtype)))
    )


def library_gradients(library, x, out_gradient) -> dict[str, torch.Tensor]:
    found = gradients(library, x.transpose(1, 2).contiguous(), out_gradient.transpose(1, 2).contiguous())
    return found | {name: found[name].transpose(1, 2) for name in ("output", "input")}


def agree(ours, peer, tolerance: float) -> None:
    """All but the last bias, a constant on all scores, whose gradient is zero up to rounding."""
    found, expected = ours(), peer()
    for name in expected.keys() - {"rel_pos_bias.mlp.2.bias"}:
        difference = ((found[name] - expected[name]).norm() / expected[name].norm()).item()
        assert difference < tolerance, f"{name}: a relative difference of {difference:.1e}"
