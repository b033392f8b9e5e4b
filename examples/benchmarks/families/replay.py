"""Whole audits on pooled draws: the driver as it is, its laws a table of draws that were made before.

A component's draws are taken from its pool with replacement; their scores are those of the pool. So an audit takes
milliseconds, and many can be run. What the pool has not seen no audit will see: families whose weights are
heavy-tailed look better here than they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from truth.tablelaws import audit_in_memory

from families.pool import PromptPool
from tailrisk.audit.estimates import estimate_all
from tailrisk.config import Config, RunConfig
from tailrisk.records import FloatArray, JudgedTexts, Prompt, Samples
from tailrisk.stats import Estimate


class PoolLaws:
    """Some of the pools' components; an answer's one token is its row in the pool."""

    corrected = True

    def __init__(self, pools: Sequence[PromptPool], every: Sequence[str], names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.fingerprints = tuple(hashlib.sha256(n.encode()).hexdigest() for n in names)
        self._columns = [list(every).index(n) for n in names]
        self._pools = {p.prompt.id: p for p in pools}
        self._rows = {
            (p.prompt.id, k): np.flatnonzero(p.component == column)
            for p in pools
            for k, column in enumerate(self._columns)
        }

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        rows = np.random.default_rng(seed).choice(self._rows[prompt.id, component], n)
        tokens = [np.array([row], dtype=np.int32) for row in rows]
        return Samples(tokens, self._pools[prompt.id].log_q_sample[rows], np.ones(n, dtype=np.bool_))

    def log_prob(
        self, prompt: Prompt, tokens: Sequence[np.ndarray], components: Sequence[int] | None = None
    ) -> FloatArray:
        columns = self._columns if components is None else [self._columns[k] for k in components]
        return self._pools[prompt.id].log_q[np.concatenate(tokens)][:, columns]

    def texts(self, tokens: Sequence[np.ndarray]) -> list[str]:
        return [str(row[0]) for row in tokens]


class PoolJudge:
    """The verdicts of the pool."""

    def __init__(self, pools: Sequence[PromptPool]) -> None:
        self._verdicts = {p.prompt.text: p.verdict for p in pools}

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        verdicts = self._verdicts[prompt][[int(r) for r in responses]].astype(np.int8)
        return JudgedTexts(verdicts, verdicts.astype(np.float64), [""] * len(responses))


def audits(
    config: Config,
    pools: Sequence[PromptPool],
    names: Sequence[str],
    draws: int,
    times: int,
    *,
    shares: str = "learned",
    pilot: int,
    seed: int,
) -> list[list[Estimate]]:
    """[times][prompts] estimates of audits with ``draws`` a prompt, none of which stops early."""
    laws = PoolLaws(pools, config.component_names, ["target", *names])
    judge, prompts = PoolJudge(pools), [p.prompt for p in pools]
    data: dict[str, Any] = config.model_dump()
    data["proposals"] = [p for p in data["proposals"] if p["name"] in names]
    data["budget"] |= {
        "draws": draws * len(prompts),
        "tokens": None,
        "pilot": pilot,
        "batch": 4096,
        "shares": shares,
        "objective": "uniform",
    }
    data["stop"]["log_width"] = 0.01
    one = Config.model_validate(data)
    ends = []
    for i in range(times):
        each = one.model_copy(update={"run": RunConfig(seed=seed + i)})
        state, _ = audit_in_memory(each, prompts, laws, judge=judge)
        ends.append(estimate_all(state))
    return ends
