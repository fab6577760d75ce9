"""The learning rate of every step."""

import numpy as np


def learning_rates(epochs: int, warmup_epochs: int, steps: int, base: float, final: float, start: float) -> np.ndarray:
    """(epochs * steps,) float64: linear from `start` to `base` in the warm-up, then a cosine from `base` towards `final`.

    As published: the warm-up includes its end, so that the base rate occurs twice, and the final rate is the limit that
    the step after the last one would have. A warm-up longer than the run is cut to the run.
    """
    warmup = np.linspace(start, base, steps * min(warmup_epochs, epochs))
    length = steps * epochs - len(warmup)
    cosine = final + 0.5 * (base - final) * (1 + np.cos(np.pi * np.arange(length) / max(length, 1)))
    return np.concatenate([warmup, cosine])
