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
from tailrisk.config import Config
from tailrisk.errors import ConfigError
from tailrisk.judges import python, refusal, regex

KINDS: dict[str, Callable[[Any, Path], Judge]] = {
    "refusal": refusal.build,
    "regex": regex.build,
    "python": python.build,
}


def build_judge(config: Config) -> Judge:
    """The judge that ``config.judge`` names; its files are relative to ``config.base``.

    Raises ConfigError where the pattern or the function cannot be used.
    """
    return KINDS[config.judge.kind](config.judge, config.base)


def build_strong_judge(config: Config) -> Judge:
    """The same for ``config.strong_judge``, which must be there."""
    assert config.strong_judge is not None
    try:
        return build_judge(config.model_copy(update={"judge": config.strong_judge.judge}))
    except ConfigError as error:
        raise ConfigError(f"strong_judge: {error}") from error


def preflight(config: Config) -> None:
    """Builds each judge once and drops it, so that a broken one is found before any model is loaded."""
    build_judge(config)
    if config.strong_judge is not None:
        build_strong_judge(config)
