"""Judges: from answers to verdicts. One file a kind; a kind is a ``build(spec, base)`` that returns a judge.

Promises of every kind: one verdict, one score and one error text for each answer, in the answers' order;
a verdict depends on its own (prompt, answer) only, so batching and order change nothing; an answer that
cannot be judged is UNDETERMINED and never raises. ``build`` loads and checks what the judge needs, and
raises ConfigError when the configuration is at fault.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tailrisk.audit.protocols import Judge
from tailrisk.config import Config, LinearJudge
from tailrisk.judges import linear, python, refusal, regex

KINDS: dict[str, Callable[[Any, Path], Judge]] = {
    "refusal": refusal.build,
    "regex": regex.build,
    "python": python.build,
    "linear": linear.build,
}


def build_judge(config: Config) -> Judge:
    """The judge that ``config.judge`` names; its files are relative to ``config.base``.

    Raises ConfigError where the pattern or the function cannot be used.
    """
    return KINDS[config.judge.kind](config.judge, config.base)


def preflight(config: Config) -> None:
    """Builds the judge once and drops it, so that a broken one is found before any model is loaded."""
    build_judge(config)


def judge_hashes(config: Config) -> dict[str, str]:
    """Content digests of the trained files that the judge is made of, by the keys that name them: part of what a run
    is. A run goes on with the very judge that it was begun with.

    Raises ConfigError where a file cannot be read.
    """
    if isinstance(config.judge, LinearJudge):
        return {"judge.weights": linear.weights_digest(config.judge, config.base)}
    return {}
