"""A watcher of long work, for tests of what it is told."""

from __future__ import annotations


class Counted:
    """A watcher that remembers stages and steps."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []
        self.steps: list[int] = []

    def stage(self, name: str, steps: int) -> None:
        self.stages.append((name, steps))
        self.steps.append(0)

    def step(self, n: int = 1) -> None:
        self.steps[-1] += n
