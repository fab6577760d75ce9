"""Writes excerpts.npz: small cases stated in plain float64 numpy, one group, head and key at a time, and what they give.

    python -m tests.reference.make_excerpts

Nothing of the project is used here: what is stated wrongly in both places was understood wrongly, not typed wrongly.
"""

from math import cos, erf, exp, log, pi, sqrt
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("excerpts.npz")
DIM, HEADS, HEAD_DIM = 16, 4, 4
# sequence length and offset groups of each attention case: an even and an odd length, a head a group and two
ATTENTION_CASES = {"even": (12, 4), "odd": (9, 2)}


def attention_weights(rng, groups: int) -> dict[str, np.ndarray]:
    inner, hidden, of_group = HEADS * HEAD_DIM, DIM // 4, HEADS * HEAD_DIM // groups
    shapes = {
        "to_offsets.0.weight": (of_group, 1, 6),
        "to_offsets.0.bias": (of_group,),
        "to_offsets.2.weight": (1, of_group, 1),
        "rel_pos_bias.mlp.0.0.weight": (hidden, 1),
        "rel_pos_bias.mlp.0.0.bias": (hidden,),
        "rel_pos_bias.mlp.1.0.weight": (hidden, hidden),
        "rel_pos_bias.mlp.1.0.bias": (hidden,),
        "rel_pos_bias.mlp.2.weight": (HEADS // groups, hidden),
        "rel_pos_bias.mlp.2.bias": (HEADS // groups,),
        "to_q.weight": (inner, DIM // groups, 1),
        "to_k.weight": (inner, DIM // groups, 1),
        "to_v.weight": (inner, DIM // groups, 1),
        "to_out.weight": (DIM, inner, 1),
        "to_out.bias": (DIM,),
    }
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}


def attention(x: np.ndarray, w: dict[str, np.ndarray], groups: int, sampling: str) -> np.ndarray:
    """x (C, N), channels first → (C, N)."""
    items = x.shape[1]
    keys = (items + 2 - 6) // 4 + 1
    wide, narrow, heads_of_group = HEADS * HEAD_DIM // groups, DIM // groups, HEADS // groups
    attended = np.zeros((HEADS * HEAD_DIM, items))
    for group in range(groups):
        own = slice(group * wide, (group + 1) * wide)
        part = x[group * narrow : (group + 1) * narrow]
        q = w["to_q.weight"][own, :, 0] @ part

        sampled, positions = np.zeros((narrow, keys)), np.zeros(keys)
        for key in range(keys):
            offset = 0.0
            for channel in range(wide):
                total = w["to_offsets.0.bias"][channel]
                for tap in range(6):
                    item = 4 * key + tap - 1
                    if 0 <= item < items:
                        total = total + w["to_offsets.0.weight"][channel, 0, tap] * q[channel, item]
                offset = offset + w["to_offsets.2.weight"][0, channel, 0] * total * 0.5 * (1 + erf(total / sqrt(2)))
            positions[key] = 2 * (key + 2 * np.tanh(offset)) / max(keys - 1, 1) - 1
            if sampling == "da018":
                middle = (part[:, (items - 1) // 2] + part[:, items // 2]) / 2
                sampled[:, key] = middle * max(0.0, 1 - abs(positions[key]) / 2)
            else:
                place = ((positions[key] + 1) * items - 1) / 2
                for item in range(items):
                    sampled[:, key] += part[:, item] * max(0.0, 1 - abs(place - item))

        k, v = (w[name][own, :, 0] @ sampled for name in ("to_k.weight", "to_v.weight"))
        for head in range(heads_of_group):
            rows = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            scores = k[rows].T @ q[rows] / sqrt(HEAD_DIM)
            for key in range(keys):
                distance = 2 * np.arange(items) / (items - 1) - 1 - positions[key]
                h = (np.sign(distance) * np.log(1 + np.abs(distance)))[None]
                for layer in ("0.0", "1.0"):
                    weight, bias = (w[f"rel_pos_bias.mlp.{layer}.{part}"] for part in ("weight", "bias"))
                    h = np.maximum(weight @ h + bias[:, None], 0)
                scores[key] += w["rel_pos_bias.mlp.2.weight"][head] @ h + w["rel_pos_bias.mlp.2.bias"][head]
            shares = np.exp(scores - scores.max(0))
            attended[group * wide + head * HEAD_DIM :][:HEAD_DIM] = v[rows] @ (shares / shares.sum(0))
    return w["to_out.weight"][:, :, 0] @ attended + w["to_out.bias"][:, None]


def slopes(function, at: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Central differences with two steps, combined; a kink in between would set the two apart."""

    def central(index, step):
        plus, minus = at.copy(), at.copy()
        plus[index] += step
        minus[index] -= step
        return (function(plus) - function(minus)) / (2 * step)

    wide = np.array([central(i, step) for i in np.ndindex(at.shape)]).reshape(at.shape)
    fine = np.array([central(i, step / 2) for i in np.ndindex(at.shape)]).reshape(at.shape)
    assert np.abs(wide - fine).max() < 1e-5 * np.abs(fine).max(), "a kink: take another seed"
    return (4 * fine - wide) / 3


def attention_arrays(case: str, seed: int) -> dict[str, np.ndarray]:
    items, groups = ATTENTION_CASES[case]
    rng = np.random.RandomState(seed)
    weights = attention_weights(rng, groups)
    x, direction = rng.standard_normal((DIM, items)), rng.standard_normal((DIM, items))
    arrays = {"x": x, "direction": direction} | {f"weight/{name}": value for name, value in weights.items()}
    for sampling in ("da018", "da020"):

        def along(x, sampling=sampling, **changed):
            return (attention(x, weights | changed, groups, sampling) * direction).sum()

        def by_taps(taps, along=along):
            return along(x, **{"to_offsets.0.weight": taps})

        arrays[f"{sampling}/out"] = attention(x, weights, groups, sampling)
        arrays[f"{sampling}/slope_x"] = slopes(along, x)
        arrays[f"{sampling}/slope_to_offsets.0.weight"] = slopes(by_taps, weights["to_offsets.0.weight"])
    return arrays


def sinkhorn(scores: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    rows, columns = scores.shape
    q = np.array([[exp(score / epsilon) for score in row] for row in scores])
    for _ in range(iterations):
        for column in range(columns):
            q[:, column] /= q[:, column].sum() * columns
        for row in range(rows):
            q[row] /= q[row].sum() * rows
    return q * rows


def sinkhorn_arrays(seed: int) -> dict[str, np.ndarray]:
    scores = np.random.RandomState(seed).uniform(-0.9, 0.9, (13, 5))
    return {"scores": scores, "few": sinkhorn(scores, 0.05, 3), "many": sinkhorn(scores, 0.03, 10)}


def swav_arrays(seed: int) -> dict[str, np.ndarray]:
    """Three crops, the first two assigned, each with a queue; loss, and its gradient by the scores with the codes fixed."""
    rng = np.random.RandomState(seed)
    rows, columns, queued, temperature = 6, 4, 9, 0.1
    scores, queue = rng.uniform(-0.7, 0.7, (3, rows, columns)), rng.uniform(-0.7, 0.7, (2, queued, columns))
    codes = np.stack([sinkhorn(np.concatenate([scores[crop], queue[crop]]), 0.05, 3)[:rows] for crop in (0, 1)])
    loss, gradient = 0.0, np.zeros_like(scores)
    for assigned in (0, 1):
        for crop in range(3):
            if crop == assigned:
                continue
            for row in range(rows):
                powers = [exp(score / temperature) for score in scores[crop, row]]
                for column in range(columns):
                    share = powers[column] / sum(powers)
                    loss -= codes[assigned, row, column] * log(share) / (4 * rows)
                    pull = share * codes[assigned, row].sum() - codes[assigned, row, column]
                    gradient[crop, row, column] += pull / (temperature * 4 * rows)
    return {"scores": scores, "queue": queue, "codes": codes, "loss": np.array(loss), "gradient": gradient}


def kmeans_arrays(seed: int) -> dict[str, np.ndarray]:
    """Lengths of rows differ, and do not count; no cluster is ever empty."""
    rng = np.random.RandomState(seed)
    rows, start = rng.standard_normal((60, 6)), np.array([41, 7, 19, 3])
    unit = np.stack([row / sqrt((row**2).sum()) for row in rows])
    centroids, assignments = unit[start], np.zeros(60, np.int64)
    for iteration in range(6):
        for row in range(60):
            assignments[row] = int(np.argmax([unit[row] @ centroid for centroid in centroids]))
        assert set(assignments) == {0, 1, 2, 3}
        if iteration < 5:
            sums = [unit[assignments == cluster].sum(0) for cluster in range(4)]
            centroids = np.stack([total / sqrt((total**2).sum()) for total in sums])
    return {"rows": rows, "start": start, "iterations": np.array(5), "centroids": centroids, "assignments": assignments}


def larc_arrays(seed: int) -> dict[str, np.ndarray]:
    """A matrix, a vector that starts at zero, and a vector without gradient in the second of three steps."""
    rng = np.random.RandomState(seed)
    lr, decay, trust = 0.2, 1e-2, 1e-3
    weights = [rng.standard_normal((3, 4)), np.zeros(5), rng.standard_normal(4)]
    gradients = [[rng.standard_normal(weight.shape) for weight in weights] for _ in range(3)]
    gradients[1][2][:] = 0
    arrays = {"lr": np.array(lr), "decay": np.array(decay)}
    arrays |= {f"weight{i}": weight.copy() for i, weight in enumerate(weights)}
    velocities = [np.zeros_like(weight) for weight in weights]
    for step in range(3):
        for i, weight in enumerate(weights):
            gradient = gradients[step][i]
            arrays[f"gradient{i}/{step}"] = gradient
            length, slope = sqrt((weight**2).sum()), sqrt((gradient**2).sum())
            if length > 0 and slope > 0:
                gradient = (gradient + decay * weight) * trust * length / (slope + decay * length + 1e-8)
            velocities[i] = 0.9 * velocities[i] + gradient
            weights[i] = weight - lr * velocities[i]
            arrays[f"after{i}/{step}"] = weights[i]
    return arrays


def schedule_arrays() -> dict[str, np.ndarray]:
    epochs, warmup, steps, base, final, start = 4, 1, 6, 0.6, 0.02, 0.05
    rates = []
    for step in range(epochs * steps):
        if step < warmup * steps:
            rates.append(start + (base - start) * step / (warmup * steps - 1))
        else:
            done = (step - warmup * steps) / ((epochs - warmup) * steps)
            rates.append(final + (base - final) * (1 + cos(pi * done)) / 2)
    return {"settings": np.array([epochs, warmup, steps, base, final, start]), "rates": np.array(rates)}


def all_arrays() -> dict[str, np.ndarray]:
    parts = {f"attention/{case}": attention_arrays(case, 11 + i) for i, case in enumerate(ATTENTION_CASES)}
    parts |= {"sinkhorn": sinkhorn_arrays(21), "swav": swav_arrays(22), "kmeans": kmeans_arrays(23)}
    parts |= {"larc": larc_arrays(24), "schedule": schedule_arrays()}
    return {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


if __name__ == "__main__":
    np.savez_compressed(FILE, **all_arrays())
