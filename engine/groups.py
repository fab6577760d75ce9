"""Groups of points that are few enough to have a colour each."""

from collections import Counter

import numpy as np

REST, NONE = "all others", "none"


def common_groups(groups: np.ndarray, most: int) -> tuple[np.ndarray, list[str]]:
    """groups (n,) of texts → the same, "" called `NONE`, small ones `REST`; and the names of the others, `most` at most."""
    groups = np.where(groups == "", NONE, groups.astype(object))
    common = [group for group, _ in Counter(sorted(groups)).most_common() if group != NONE]
    if len(common) > most:
        common = common[: most - 1]
        groups = np.where(np.isin(groups, [*common, NONE]), groups, REST)
    return groups, sorted(common)
