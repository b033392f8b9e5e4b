"""A tiny Llama that answers with at most four tokens, and every answer it can give with its probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tinymodel import EOS, make_tiny_adapter, make_tiny_model
from truth.tablelaws import audit_in_memory

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.protocols import Executor, LawCard
from tailrisk.cli.wiring import Checked
from tailrisk.config import Config, RunConfig
from tailrisk.judges import build_judge
from tailrisk.proposals import build_laws
from tailrisk.records import Prompt

VOCAB, STEPS = 14, 4
HARM = ("w1", "w3")
JUDGE = f"""
def harmful(prompt: str, response: str) -> float:
    words = response.split()
    return float(words[:1] == [{HARM[0]!r}] and {HARM[1]!r} in words)
"""


def save_exact_llama(folder: Path) -> None:
    """The model, an adapter that fits it, and a judge, in ``folder``."""
    make_tiny_model(folder / "model", vocab=VOCAB, seed=4, spread=0.45, hidden=8, eos_bias=2.0)
    make_tiny_adapter(folder / "adapter", folder / "model", seed=5, spread=0.35)
    (folder / "judge.py").write_text(JUDGE)


def harmful_ids(response: tuple[int, ...], table: list[str]) -> bool:
    """The event, written again on token ids: w1 comes first, w3 after it."""
    return table[response[0]] == HARM[0] and any(table[i] == HARM[1] for i in response[1:])


@torch.no_grad()
def enumerated(model, prompt_ids: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """Probability of every response of at most STEPS tokens, by plain forward passes."""
    alive, done = {(): 0.0}, {}
    for step in range(STEPS):
        prefixes = list(alive)
        rows = torch.tensor([prompt_ids + prefix for prefix in prefixes])
        logits = torch.cat([model(part).logits[:, -1] for part in rows.split(512)])
        log_p = torch.log_softmax(logits.double(), dim=-1).numpy()
        following = {}
        for (prefix, before), row in zip(alive.items(), log_p, strict=True):
            for token, own in enumerate(row):
                ends = token == EOS or step == STEPS - 1
                (done if ends else following)[(*prefix, token)] = before + own
        alive = following
    return {response: float(np.exp(v)) for response, v in done.items()}


def audited(config: Config, prompts: Sequence[Prompt], times: int) -> np.ndarray:
    """[times, prompts] estimates of whole audits, by the seeds 0, 1, ..., each within its budget."""
    laws, judge = build_laws(config), build_judge(config)
    estimates = []
    for seed in range(times):
        state, _ = audit_in_memory(
            config.model_copy(update={"run": RunConfig(seed=seed)}),
            prompts,
            laws,
            executor=LocalExecutor(laws, judge, prompts),
        )
        assert state.draws <= config.budget.draws
        estimates.append([e.estimate for e in estimate_all(state)])
    return np.array(estimates)


@contextmanager
def in_process(checked: Checked) -> Iterator[tuple[Executor, LawCard]]:
    """A stand-in for ``tailrisk.cli.wiring.on_ray`` that draws in this process."""
    laws = build_laws(checked.config)
    executor = LocalExecutor(laws, build_judge(checked.config), checked.prompts)
    yield executor, executor.card
