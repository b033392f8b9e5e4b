"""Samples of a fixed size with given inclusion probabilities.

Deville's systematic sampling, which is ordered pivotal sampling (Chauvet 2012, "On a characterization of ordered
pivotal sampling"): the probabilities are laid end to end and one unit is taken from each interval of length one.
Every unit is taken with exactly its probability, the size is the sum of the probabilities, rounded up or down, and the
indicators are strongly Rayleigh (Brändén & Jonasson 2012, "Negative dependence in sampling"), so negatively
associated: the mean of a product of functions of them that all grow, or all fall, is at most the product of the means.
So bounds that were made for independent draws hold for these too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tailrisk.records import FloatArray, IntArray

_CERTAIN = 1.0 - 1e-9


def fixed_size_sample(pi: FloatArray, group: IntArray, seed: int) -> NDArray[np.bool_]:
    """[n] who is taken, unit i with probability ``pi[i]``; at most ``ceil(sum(pi))`` of them, up to rounding.

    Units are laid out by ``group`` [n], within it in an order drawn from ``seed``: neighbours exclude each other, which
    makes the sample the more even over what is alike. Costs a step in Python for each unit that is taken.
    """
    rng = np.random.default_rng(seed)
    taken = pi >= _CERTAIN
    order = rng.permutation(len(pi))
    order = order[np.argsort(group[order], kind="stable")]
    order = order[(pi[order] < _CERTAIN) & (pi[order] > 0.0)]
    ends = np.cumsum(pi[order])
    if not len(ends):
        return taken
    steps = int(np.ceil(ends[-1] - 1e-9))
    border = np.searchsorted(ends, np.arange(steps), side="right")
    uniforms = rng.random((steps, 2))
    last = -1
    for i in range(steps):
        # The unit that lies across the border between the interval before and this one.
        k = int(border[i])
        before = i - float(ends[k - 1]) if k else float(i)
        here = float(ends[k]) - i
        across = i > 0 and before > 0.0
        if not across:
            place = uniforms[i, 0]
        elif last != k and uniforms[i, 1] < here / (1.0 - before):
            place = uniforms[i, 0] * here
        else:
            place = here + uniforms[i, 0] * (1.0 - here)
        last = int(np.searchsorted(ends, i + place, side="right"))
        if last < len(ends):
            taken[order[last]] = True
    return taken
