import math
from pathlib import Path

import numpy as np
import pytest

from engine.schedule import learning_rates

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "lr_schedule.npz"


def test_warm_up_then_cosine():
    rates = learning_rates(epochs=5, warmup_epochs=2, steps=7, base=0.3, final=0.01, start=0.1)
    assert len(rates) == 35
    for step in range(14):
        assert rates[step] == pytest.approx(0.1 + (0.3 - 0.1) * step / 13)
    for step in range(21):
        assert rates[14 + step] == pytest.approx(0.01 + 0.5 * 0.29 * (1 + math.cos(math.pi * step / 21)))


@pytest.mark.parametrize("warmup", [0, 1, 3, 10])
def test_a_run_has_a_rate_for_every_step(warmup):
    rates = learning_rates(3, warmup, 4, 1.0, 0.0, 0.0)
    assert len(rates) == 12 and rates.max() == 1.0 and np.isfinite(rates).all()


@pytest.mark.skipif(not REFERENCE.exists(), reason="the published schedule is not here")
@pytest.mark.parametrize("case", [0, 1])
def test_equals_the_published_schedule(case):
    stored = np.load(REFERENCE)
    epochs, warmup, steps, base, final, start = stored[f"config{case}"]
    rates = learning_rates(int(epochs), int(warmup), int(steps), base, final, start)
    assert np.allclose(rates, stored[f"lr{case}_f64"], rtol=1e-12, atol=0)
