"""Small arrays from straight-line statements in numpy, float64: what is computed, said once more, without this project's code.

Run      python -m tests.reference.make_excerpts
Writes   tests/reference/excerpts.npz
"""

import math
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("excerpts.npz")
HEADS, HEAD_DIM, DIM, ITEMS = 2, 4, 8, 12


def attention_weights(rng) -> dict[str, np.ndarray]:
    """Names and shapes of one layer; groups are the heads."""
    inner = HEADS * HEAD_DIM
    shapes = {
        "to_offsets.0.weight": (HEAD_DIM, 1, 6), "to_offsets.0.bias": (HEAD_DIM,), "to_offsets.2.weight": (1, HEAD_DIM, 1),
        "rel_pos_bias.mlp.0.0.weight": (DIM // 4, 1), "rel_pos_bias.mlp.0.0.bias": (DIM // 4,),
        "rel_pos_bias.mlp.1.0.weight": (DIM // 4, DIM // 4), "rel_pos_bias.mlp.1.0.bias": (DIM // 4,),
        "rel_pos_bias.mlp.2.weight": (1, DIM // 4), "rel_pos_bias.mlp.2.bias": (1,),
        **{f"to_{name}.weight": (inner, DIM // HEADS, 1) for name in "qkv"},
        "to_out.weight": (DIM, inner, 1), "to_out.bias": (DIM,),
    }  # fmt: skip
    return {name: rng.standard_normal(shape) / math.sqrt(max(1, math.prod(shape[1:]))) for name, shape in shapes.items()}


def grouped(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A 1x1 convolution in HEADS groups: (C, N) → (inner, N)."""
    parts = np.split(x, HEADS)
    return np.concatenate([of_group[..., 0] @ part for of_group, part in zip(np.split(weight, HEADS), parts)])


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def read_at(x: np.ndarray, place: float) -> np.ndarray:
    """x (C, N) at a fractional item: linear, zero outside."""
    below = math.floor(place)
    value = np.zeros(len(x))
    for item, share in ((below, below + 1 - place), (below + 1, place - below)):
        if 0 <= item < x.shape[1]:
            value = value + share * x[:, item]
    return value


def attention(x: np.ndarray, w: dict[str, np.ndarray], sampling: str) -> np.ndarray:
    """x (C, N) → (C, N): keys at N/4 learned positions, stride 4, kernel 6, padding 1, offsets up to 2."""
    items, keys = x.shape[1], (x.shape[1] - 4) // 4 + 1
    q = grouped(x, w["to_q.weight"])
    out = np.zeros((HEADS * HEAD_DIM, items))
    for head in range(HEADS):
        of_head = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        padded = np.pad(q[of_head], ((0, 0), (1, 1)))
        windows = np.stack([padded[:, 4 * key : 4 * key + 6] for key in range(keys)], 1)  # (head_dim, keys, 6)
        hidden = gelu((windows * w["to_offsets.0.weight"]).sum(2) + w["to_offsets.0.bias"][:, None])
        offsets = 2 * np.tanh(w["to_offsets.2.weight"][0, :, 0] @ hidden)
        positions = 2 * (np.arange(keys) + offsets) / (keys - 1) - 1
        part = np.split(x, HEADS)[head]
        if sampling == "da020":
            sampled = np.stack([read_at(part, ((p + 1) * items - 1) / 2) for p in positions], 1)
        else:
            middle = (part[:, items // 2 - 1] + part[:, items // 2]) / 2
            sampled = middle[:, None] * np.maximum(0, 1 - np.abs(positions) / 2)
        k = np.split(w["to_k.weight"], HEADS)[head][..., 0] @ sampled
        v = np.split(w["to_v.weight"], HEADS)[head][..., 0] @ sampled
        distance = 2 * np.arange(items)[:, None] / (items - 1) - 1 - positions
        bias = (np.sign(distance) * np.log1p(np.abs(distance)))[..., None]
        for layer in ("0.0", "1.0"):
            bias = np.maximum(0, bias @ w[f"rel_pos_bias.mlp.{layer}.weight"].T + w[f"rel_pos_bias.mlp.{layer}.bias"])
        bias = (bias @ w["rel_pos_bias.mlp.2.weight"].T + w["rel_pos_bias.mlp.2.bias"])[..., 0]
        scores = q[of_head].T @ k / math.sqrt(HEAD_DIM) + bias
        share = np.exp(scores - scores.max(1, keepdims=True))
        out[of_head] = v @ (share / share.sum(1, keepdims=True)).T
    return w["to_out.weight"][..., 0] @ out + w["to_out.bias"][:, None]


def slope(function, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """The gradient of a scalar function, by central differences."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        moved = np.zeros_like(x)
        moved[place] = step
        gradient[place] = (function(x + moved) - function(x - moved)) / (2 * step)
    return gradient


def sinkhorn(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    q = np.exp(scores / epsilon)
    for _ in range(iterations):
        q = q / q.sum(0) / q.shape[1]
        q = q / q.sum(1, keepdims=True) / q.shape[0]
    return q * len(q)


def cross_entropy(targets: np.ndarray, scores: np.ndarray, temperature: float) -> float:
    logits = scores / temperature
    log_share = logits - logits.max(1, keepdims=True)
    log_share = log_share - np.log(np.exp(log_share).sum(1, keepdims=True))
    return float(-(targets * log_share).sum(1).mean())


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def kmeans(rows: np.ndarray, start: np.ndarray, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    centroids = rows[start]
    for _ in range(iterations):
        nearest = (rows @ centroids.T).argmax(1)
        centroids = unit(np.stack([rows[nearest == k].sum(0) for k in range(len(start))]))
    return centroids, (rows @ centroids.T).argmax(1)


def larc(weight, gradients, lr, decay):
    momentum = np.zeros_like(weight)
    for gradient in gradients:
        size, slope_size = np.linalg.norm(weight), np.linalg.norm(gradient)
        scaled = (gradient + decay * weight) * 0.001 * size / (slope_size + decay * size + 1e-8)
        momentum = 0.9 * momentum + scaled
        weight = weight - lr * momentum
    return weight


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20261123)
    arrays: dict[str, np.ndarray] = {}
    weights, x = attention_weights(rng), rng.standard_normal((DIM, ITEMS))
    arrays |= {f"attention/weight/{name}": value for name, value in weights.items()} | {"attention/x": x}
    for sampling in ("da018", "da020"):
        arrays[f"attention/{sampling}/out"] = attention(x, weights, sampling)
        arrays[f"attention/{sampling}/grad_x"] = slope(lambda x, s=sampling: (attention(x, weights, s) ** 2).sum(), x)
    scores = np.clip(0.4 * rng.standard_normal((2, 20, 6)), -1, 1)
    codes = np.stack([sinkhorn(view, 0.05, 3) for view in scores])
    loss = (cross_entropy(codes[0], scores[1], 0.1) + cross_entropy(codes[1], scores[0], 0.1)) / 2
    arrays |= {"swav/scores": scores, "swav/codes": codes, "swav/loss": np.array(loss)}
    targets = rng.integers(0, 6, 20)
    entropy = cross_entropy(np.eye(6)[targets], scores[0], 0.1)
    arrays |= {"deepcluster/targets": targets, "deepcluster/loss": np.array(entropy)}
    middles = unit(rng.standard_normal((5, 16)))
    rows = unit(np.repeat(middles, 12, 0) + 0.1 * rng.standard_normal((60, 16)))
    start = np.array([0, 12, 24, 36, 48])
    centroids, assigned = kmeans(rows, start, 10)
    arrays |= {"kmeans/rows": rows, "kmeans/start": start, "kmeans/centroids": centroids, "kmeans/assigned": assigned}
    weight, gradients = rng.standard_normal((5, 7)), rng.standard_normal((3, 5, 7))
    arrays |= {"larc/weight": weight, "larc/gradients": gradients, "larc/after": larc(weight, gradients, 0.3, 1e-2)}
    rates = [0.01 * step / 13 for step in range(14)]
    rates += [0.5 * 0.01 * (1 + math.cos(math.pi * step / 21)) for step in range(21)]
    predictions, wanted = rng.standard_normal((2, 4, 7, 8))
    masked = rng.random((4, 7)) < 0.3
    errors = (predictions - wanted) ** 2
    published = (errors[:2].mean() + errors[2:].mean()) / int(0.3 * 7)
    arrays |= {
        "schedule": np.array(rates),
        "masked/predictions": predictions,
        "masked/targets": wanted,
        "masked/masked": masked,
    }
    return arrays | {"masked/loss": np.array(errors[masked].mean()), "masked/published_loss": np.array(published)}


if __name__ == "__main__":
    np.savez_compressed(FILE, **make())
