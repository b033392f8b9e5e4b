"""What every kind of judge has in the configuration."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from tailrisk.proposalconfig import Section

OPERATIONAL = frozenset(
    {"check", "cache", "url", "key_env", "timeout_s", "retries", "concurrency", "patience_s", "budget"}
)
"""Keys of judges that say how verdicts are got, or how good they are, and not what they are: a run may be resumed with
other ones."""


class JudgeSection(Section):
    """What every kind of judge has. ``has_model``: weights, which only workers load; ``can_be_cut``: they may be spread
    over the processes of one worker (``tensor_parallel``, ``pipeline_parallel`` of ``cluster.judges``)."""

    has_model: ClassVar[bool] = False
    check: str | None = None
    """What ``tailrisk judge check --out`` wrote of this judge; estimates are then corrected for its error."""
    cache: bool | None = None
    """An answer to a prompt that was judged before keeps its verdict and is not judged again; null: by kind, on where a
    verdict costs more than to look it up."""
    dear: ClassVar[bool] = True
    """A verdict costs more than to look it up."""

    @property
    def parts(self) -> tuple[JudgeSection, ...]:
        """The judges that this one is made of."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(p for v in values if isinstance(v, tuple) for p in v if isinstance(p, JudgeSection))

    @property
    def cached(self) -> bool:
        if self.cache is not None:
            return self.cache
        return any(part.cached for part in self.parts) if self.parts else self.dear

    @property
    def at_once(self) -> int:
        """Batches that one worker judges side by side."""
        return 1

    def shared(self, workers: int) -> Self:
        """The part of one of so many workers, where there is something to share."""
        return self.model_copy(
            update={
                name: tuple(p.shared(workers) if isinstance(p, JudgeSection) else p for p in value)
                for name in type(self).model_fields
                if isinstance(value := getattr(self, name), tuple)
            }
        )

    @property
    def can_be_cut(self) -> bool:
        return False


def judge_identity(resolved: Any) -> Any:
    """A judge's section as plain JSON without what is operational, in the judges that it is made of too."""
    if isinstance(resolved, list):
        return [judge_identity(value) for value in resolved]
    if not isinstance(resolved, dict) or "kind" not in resolved:
        return resolved
    return {key: judge_identity(value) for key, value in resolved.items() if key not in OPERATIONAL}
