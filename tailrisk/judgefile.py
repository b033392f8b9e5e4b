"""A judge by itself: from an audit's configuration, or from a YAML file with nothing but its section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tailrisk.config import ClusterConfig, JudgeConfig
from tailrisk.configfile import check_section, load_config, read_document
from tailrisk.errors import ConfigError
from tailrisk.proposalconfig import Section
from tailrisk.strictyaml import Document


class JudgeFile(Section):
    """What such a file may hold."""

    judge: JudgeConfig
    cluster: ClusterConfig = ClusterConfig()


class LoneJudge(NamedTuple):
    """``spec`` with its files relative to ``base``; ``cluster``: where its workers are."""

    spec: JudgeConfig
    base: Path
    cluster: ClusterConfig


def load_judge(
    path: Path, overrides: Sequence[str] = (), cluster: Mapping[str, Any] | None = None
) -> LoneJudge:
    """The judge of an audit's configuration, or of a file with the key ``judge`` and, if need be, ``cluster``.

    ``cluster`` are settings that count where the file has none. ``ConfigError`` lists all problems found.
    """
    path = Path(path)
    document = read_document(path)
    base = path.resolve().parent
    if "kind" in document.data and "judge" not in document.data:
        raise ConfigError(
            f"{path}: the settings of a judge belong under the key 'judge'; indent them below it"
        )
    if set(document.data) - set(JudgeFile.model_fields):
        config = load_config(path, overrides)
        return LoneJudge(config.judge, config.base, config.cluster)
    if cluster is not None:
        document.data.setdefault("cluster", dict(cluster))
    found = check_section(document, path, JudgeFile, overrides)
    return LoneJudge(found.judge, base, found.cluster)


def changed_judge(
    judge: Mapping[str, Any], cluster: Mapping[str, Any], overrides: Sequence[str], base: Path
) -> LoneJudge:
    """A judge by its settings and ``--set`` overrides of them, its files relative to ``base``."""
    document = Document({"judge": dict(judge), "cluster": dict(cluster)}, {})
    found = check_section(document, Path("--set"), JudgeFile, overrides)
    return LoneJudge(found.judge, base, found.cluster)
