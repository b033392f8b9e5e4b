"""Progress of work in stages, on stderr: bars on a terminal, one line when a stage starts and ends otherwise."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from tailrisk.cli.progress import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


class Steps:
    """A context manager; one stage at a time, ended by the next or by leaving."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._stage: tuple[str, int, float] | None = None
        self._done = 0

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.quiet:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bars = Progress(*columns, console=self._console, transient=True, redirect_stdout=False)
            self._bars.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()
        if kind is None:
            self._end()

    def stage(self, name: str, steps: int) -> None:
        self._end()
        self._stage, self._done = (name, steps, time.monotonic()), 0
        if self._bars is not None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(name, total=steps)
        else:
            self._line(f"{name}: {steps:,} to do")

    def step(self, n: int = 1) -> None:
        self._done += n
        if self._bars is not None and self._task is not None:
            self._bars.advance(self._task, n)

    def _end(self) -> None:
        if self._stage is not None:
            name, steps, began = self._stage
            self._stage = None
            self._line(f"{name}: {self._done:,} of {steps:,} in {duration(time.monotonic() - began)}")

    def _line(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)
