"""Judges: from answers to verdicts. One file a kind; a kind is a ``build(spec, base)`` that returns a judge.

Promises of every kind: one verdict, one score and one error text for each answer, in the answers' order;
a verdict depends on its own (prompt, answer) only, so batching and order change nothing; an answer that
cannot be judged is UNDETERMINED and never raises. ``build`` loads and checks what the judge needs, and
raises ConfigError when the configuration is at fault.

A kind whose judge is a model has a ``check(spec, base, parallel, digest)`` besides, which finds what can be found wrong
without loading the weights and returns digests of what the verdicts depend on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from tailrisk.audit.protocols import Judge
from tailrisk.config import ClusterConfig, Config, EndpointJudge, JudgeConfig, Parallel
from tailrisk.errors import TailriskError
from tailrisk.judgeconfig import SingleJudge, judges_of
from tailrisk.judges import (
    classifier,
    combined,
    endpoint,
    linear,
    python,
    refusal,
    regex,
    rubric,
    strongreject,
)

KINDS: dict[str, Callable[[Any, Path], Judge]] = {
    "refusal": refusal.build,
    "regex": regex.build,
    "python": python.build,
    "linear": linear.build,
    "endpoint": endpoint.build,
    "strongreject": strongreject.build,
    "rubric": rubric.build,
    "classifier": classifier.build,
}
KINDS |= dict.fromkeys(("all", "any"), functools.partial(combined.build, builders=KINDS))
CHECKS: dict[str, Callable[[Any, Path, Parallel, bool], dict[str, str]]] = {
    "linear": linear.check,
    "strongreject": strongreject.check,
    "rubric": rubric.check,
    "classifier": classifier.check,
}


def build_judge(config: Config) -> Judge:
    """The judge that ``config.judge`` names; its files are relative to ``config.base``.

    Raises ConfigError where the pattern or the function cannot be used, ModelError where a model cannot.
    """
    return build_spec(config.judge.shared(config.cluster.judges.max), config.base)


def build_spec(spec: JudgeConfig, base: Path) -> Judge:
    """The judge of a ``judge`` section; as ``build_judge``."""
    return KINDS[spec.kind](spec, base)


def build_strong_judge(config: Config) -> Judge:
    """The same for ``config.strong_judge``, which must be there."""
    assert config.strong_judge is not None
    size = config.cluster.strong_judges or config.cluster.judges
    try:
        return build_spec(config.strong_judge.judge.shared(size.max), config.base)
    except TailriskError as error:
        raise type(error)(combined.placed(str(error), "strong_judge.judge")) from error


def preflight(config: Config, absent: Collection[str] = (), *, digest: bool = True) -> dict[str, str]:
    """``check_judge`` for the judges of an audit."""
    return check_judges(config.judges, config.base, config.cluster, absent, digest=digest)


def check_judge(spec: JudgeConfig, base: Path, cluster: ClusterConfig) -> dict[str, str]:
    """``check_judges`` for one by itself."""
    return check_judges(judges_of(spec), base, cluster)


def check_judges(
    judges: Iterable[tuple[str, SingleJudge]],
    base: Path,
    cluster: ClusterConfig,
    absent: Collection[str] = (),
    *,
    digest: bool = True,
) -> dict[str, str]:
    """Finds a broken judge before any model is loaded: builds judges once and drops them, and of those that are
    models reads all but the weights. Nothing is asked of an endpoint, and its key is looked for here only where the
    workers have this process's environment. Returns sha256 digests of what belongs to a judge besides its settings, by
    name.

    ``absent``: places in the configuration (``judge.judges.0``) whose files are not on this machine. Not ``digest``:
    weights are not even hashed, and those of a hub model not fetched.

    Errors: ConfigError, ModelError, with the place in the configuration.
    """
    digests: dict[str, str] = {}
    for field, spec in judges:
        if field in absent:
            continue
        try:
            if isinstance(spec, EndpointJudge):
                endpoint.check(spec, cluster)
            elif (check := CHECKS.get(spec.kind)) is None:
                build_spec(spec, base)
            else:
                strong = field.startswith("strong_judge.") and cluster.strong_judges
                found = check(spec, base, (strong or cluster.judges).parallel, digest)
                digests |= {f"{field}.{name}": value for name, value in found.items()}
        except TailriskError as error:
            if field == "judge":
                raise
            raise type(error)(combined.placed(str(error), field)) from error
    return digests
