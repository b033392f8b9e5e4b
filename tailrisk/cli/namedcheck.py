"""The check of a judge that a configuration names: read, and held against the judge that is configured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tailrisk.errors import ConfigError

if TYPE_CHECKING:
    from tailrisk.config import Config
    from tailrisk.judgeconfig import JudgeConfig
    from tailrisk.store.checkfile import JudgeCheck


def named_check(config: Config) -> JudgeCheck | None:
    """The check at ``judge.check``; None without one. Errors: ConfigError, of another judge too."""
    return check_of(config.judge, config.base)


def check_of(spec: JudgeConfig, base: Path) -> JudgeCheck | None:
    from tailrisk.judges.identity import judge_digest
    from tailrisk.store.checkfile import load_check

    if spec.check is None:
        return None
    path = (base / Path(spec.check).expanduser()).resolve()
    check = load_check(path)
    if check.digest != judge_digest(spec, base):
        raise ConfigError(
            f"judge.check: {path} is of another judge than the one that is configured: its settings or its files "
            "have changed since. Check this one ('tailrisk judge check CONFIG LABELS --out FILE'), or leave "
            "judge.check out"
        )
    return check
