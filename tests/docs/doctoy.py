"""What the commands of the pages are run with: audits draw from exact tables in this process, in the place of models.

All else is as in life: configuration, prompts, judges that need no model, run folder, estimates. The page that an audit
leaves is blank: ``tailrisk report`` writes it in full.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docpages import ROOT
from fakerun import WordJudge, blank_page

from tailrisk.audit.local import LocalExecutor
from tailrisk.cli import rejudge, run, wiring
from tailrisk.config import Config
from tailrisk.judges import build_judge
from tailrisk.records import Prompt, Samples

ANSWERS, HARMFUL = 60, 20
WITHOUT_MODELS = {"refusal", "regex", "python", "linear"}


class ToyLaws:
    """The first ``HARMFUL`` of ``ANSWERS`` answers comply; how often is the prompt's own matter under the target, and
    much more often under every proposal."""

    corrected = False

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.fingerprints = tuple(f"law-{name}" for name in names)

    def _table(self, prompt: Prompt) -> np.ndarray:
        rare = 10.0 ** -(1.5 + zlib.crc32(prompt.id.encode()) % 100 / 50)
        p = [rare, *(0.3 + 0.4 * k / len(self.names) for k in range(1, len(self.names)))]
        shape = np.geomspace(1.0, 5.0, HARMFUL)
        rest = np.full(ANSWERS - HARMFUL, 1 / (ANSWERS - HARMFUL))
        return np.array([np.concatenate([x * shape / shape.sum(), (1 - x) * rest]) for x in p])

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        row = self._table(prompt)[component]
        drawn = np.random.default_rng(seed).choice(ANSWERS, size=n, p=row / row.sum())
        tokens = [np.array([d, 1], dtype=np.int32) for d in drawn]
        return Samples(tokens, np.log(row[drawn]), np.ones(n, dtype=np.bool_))

    def log_prob(
        self, prompt: Prompt, tokens: Sequence[np.ndarray], components: Sequence[int] | None = None
    ) -> np.ndarray:
        table = self._table(prompt)
        table = table if components is None else table[list(components)]
        return np.log(table[:, [int(t[0]) for t in tokens]]).T

    def texts(self, tokens: Sequence[np.ndarray]) -> list[str]:
        return [
            f"Of course, no harm: this is how number {t[0]} is done by anybody."
            if t[0] < HARMFUL
            else f"I'm sorry, but I cannot help with number {t[0]}."
            for t in tokens
        ]


def judge(config: Config) -> Any:
    return build_judge(config) if config.judge.kind in WITHOUT_MODELS else WordJudge()


@contextmanager
def in_process(checked: Any) -> Iterator[Any]:
    """In the place of ``tailrisk.cli.wiring.on_ray``."""
    config = checked.config
    executor = LocalExecutor(ToyLaws(config.component_names), judge(config), checked.prompts)
    yield executor, executor.card


def stand_ins(patch: pytest.MonkeyPatch) -> None:
    """No models, no Ray, no MLflow."""
    from tailrisk import tracking

    workers = rejudge.judge_workers
    patch.setattr(wiring, "check_models", lambda config, prompts: {"model.target": "0" * 64})
    patch.setattr(wiring, "on_ray", in_process)
    patch.setattr(
        wiring.Reporter, "finished", lambda self, outcome: setattr(self, "path", blank_page(outcome.folder))
    )
    patch.setattr(rejudge, "judge_workers", lambda config, prompts, _: workers(config, prompts, True))
    patch.setattr(tracking, "open_tracker", lambda config, folder, **_: tracking.NullTracker())


def examples(folder: Path) -> None:
    """Copies of what the pages name by paths of the repository, for commands that write beside them."""
    shutil.copytree(
        ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("benchmarks", "labels", "runs")
    )


def finished_audit(folder: Path) -> None:
    """``my-audit/`` as ``tailrisk init`` and ``tailrisk audit`` leave it."""
    with pytest.MonkeyPatch.context() as patch:
        stand_ins(patch)
        patch.chdir(folder)
        assert run(["init", "my-audit"]) == 0
        assert run(["audit", "my-audit/tailrisk.yaml"]) in (0, 3)
