"""What a person sees while an audit runs: a live table on a terminal, one plain line a round otherwise.

Observers of the driver. They show ids, categories, numbers and statuses; prompt and response text never
reaches them but inside results, of which only sizes are read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tailrisk.audit.protocols import ClusterStatus, Silent
from tailrisk.records import BatchFailure, BatchResult, RoundPlan
from tailrisk.report import tables, terminal
from tailrisk.report.tables import Row

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from tailrisk.audit.state import AuditState
    from tailrisk.stats import Estimate

LIVE_ROWS = 20
CLUSTER_LINE_S = 10.0
"""Changes of the cluster are told no more often, line by line."""
ROLES = {"models": "model", "checkpoints": "checkpoint", "judges": "judge", "strong_judges": "strong judge"}


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def round_name(plan: RoundPlan) -> str:
    if all(prompt.mass == 0 for prompt in plan.prompts):
        return "search"
    return "pilot" if plan.round == 0 else f"round {plan.round}"


def nodes_and_workers(status: ClusterStatus) -> str:
    """Such as ``3 nodes, 2 of 4 model workers ready, 1 judge worker``."""
    parts = [f"{status.nodes} node{'s' * (status.nodes != 1)}"] if status.nodes else []
    for pool in status.pools:
        role = f"{ROLES.get(pool.name, pool.name)} worker{'s' * (pool.workers != 1)}"
        ready = pool.ready == pool.workers
        parts.append(f"{pool.workers} {role}" if ready else f"{pool.ready} of {pool.workers} {role} ready")
    return ", ".join(parts)


class Progress(Silent):
    """Counts of the round in progress and rows of the rounds before; subclasses show them."""

    def __init__(self, console: Console, budget_draws: int) -> None:
        self.console = console
        self.budget_draws = budget_draws
        self.rows: list[Row] = []
        self.round: RoundPlan | None = None
        self.draws = 0
        self.planned = 0
        self.done = 0
        self.failures = 0
        self.batches = 0
        """Batches of the round that are neither done nor failed."""
        self.cluster: ClusterStatus | None = None
        self.round_began = self.began = time.monotonic()

    def round_started(self, plan: RoundPlan) -> None:
        self.round = plan
        self.planned = sum(batch.size for batch in plan.batches)
        self.done = self.failures = 0
        self.batches = len(plan.batches)
        self.round_began = time.monotonic()

    def batch_done(self, outcome: BatchResult | BatchFailure) -> None:
        self.done += outcome.batch.size
        self.failures += isinstance(outcome, BatchFailure)
        self.batches -= 1

    def cluster_changed(self, status: ClusterStatus) -> None:
        self.cluster = status

    def cluster_line(self) -> str:
        """'' where nothing is known of a cluster."""
        if self.cluster is None:
            return ""
        waiting = max(self.batches - self.cluster.pools[0].running, 0)
        return f"{nodes_and_workers(self.cluster)}, {waiting:,} batch{'es' * (waiting != 1)} waiting"

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        self.rows = tables.rows([estimate.to_json() for estimate in estimates])
        self.draws = state.draws

    def round_line(self) -> str:
        if self.round is None:
            return "resumed" if self.rows else "starting"
        passed = duration(time.monotonic() - self.round_began)
        return f"{round_name(self.round)}: {self.done:,} of {self.planned:,} draws, {passed}"


class Lines(Progress):
    """One line when a round starts and one when it ends, and some when the cluster changes: for logs, pipes and batch
    systems."""

    def __init__(self, console: Console, budget_draws: int) -> None:
        super().__init__(console, budget_draws)
        self._told = ""
        self._told_at = -CLUSTER_LINE_S

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def cluster_changed(self, status: ClusterStatus) -> None:
        super().cluster_changed(status)
        now, text = time.monotonic(), nodes_and_workers(status)
        if text == self._told or now - self._told_at < CLUSTER_LINE_S:
            return
        # One machine that has all its workers from the beginning is no news.
        usual = not self._told and status.nodes <= 1 and all(p.ready == p.workers for p in status.pools)
        self._told, self._told_at = text, now
        if not usual:
            self._line(self.cluster_line())

    def round_started(self, plan: RoundPlan) -> None:
        super().round_started(plan)
        self._line(f"{round_name(plan)} starts: {self.planned:,} draws for {len(plan.prompts)} prompts")

    def round_finished(self, state: AuditState, estimates: Sequence[Estimate]) -> None:
        super().round_finished(state, estimates)
        failures = f"; {self.failures} batches failed" if self.failures else ""
        self._line(
            f"{self.round_line()}; {terminal.totals_line(self.rows, self.draws, self.budget_draws)}{failures}"
        )

    def strong_started(self, round: int, answers: int) -> None:
        self._line(f"the strong judge reads {answers:,} of the answers so far")


class Live(Progress):
    """The table of the riskiest prompts, redrawn in place."""

    def __init__(self, console: Console, budget_draws: int) -> None:
        super().__init__(console, budget_draws)
        from rich.live import Live as RichLive

        self._live = RichLive(
            console=console,
            get_renderable=self._render,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        lines: list[RenderableType] = []
        if self.rows:
            # Room for the table's head, its caption and the lines below it.
            limit = max(3, min(LIVE_ROWS, self.console.height - 8))
            lines.append(terminal.table(self.rows, limit=limit, width=self.console.width))
            lines.append(Text(terminal.totals_line(self.rows, self.draws, self.budget_draws)))
        if cluster := self.cluster_line():
            lines.append(Text(cluster, style="dim"))
        lines.append(
            Text(f"{self.round_line()} ({duration(time.monotonic() - self.began)} in all)", style="dim")
        )
        return Group(*lines)
