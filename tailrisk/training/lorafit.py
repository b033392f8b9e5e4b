"""The fit of a LoRA to weighted harmful answers: epochs of steps, stopped where held-out prompts gain no more.

What is maximised is the cross-entropy method's weighted likelihood (Rubinstein & Kroese 2004): the law in the family
that is nearest to q* = p h / mu in KL(q*||q). The same divergence, estimated by the hits of prompts that the fit
does not see, decides when to stop and which epoch's factors are kept; epoch 0 is the base law itself.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from tailrisk.errors import ModelError
from tailrisk.records import FloatArray
from tailrisk.seeds import derive_seed
from tailrisk.store.atomic import write_json_atomic
from tailrisk.training.avoided import openings_of
from tailrisk.training.backends import Backend
from tailrisk.training.lorabatches import Inputs, epoch_steps, inputs
from tailrisk.training.loradata import Example, FitData
from tailrisk.training.loraloss import Forward, answer_log_probs, forward, log_laws, pass_loss
from tailrisk.training.loramodel import State
from tailrisk.trainingconfig import LoraTraining

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peft import PeftModel

    from tailrisk.training.directions import Watcher

PROGRESS, BEST = "progress.json", "best.pt"


class Epoch(NamedTuple):
    """``loss`` is None for epoch 0; ``divergence``: mean over held-out prompts of KL(q*||q) in nats."""

    number: int
    loss: float | None
    divergence: float
    seconds: float


class Fitted(NamedTuple):
    """The factors of the best epoch and how all went."""

    state: State
    epochs: tuple[Epoch, ...]
    best: int

    @property
    def before(self) -> float:
        return self.epochs[0].divergence

    @property
    def after(self) -> float:
        return self.epochs[self.best].divergence


class Fit:
    """One fit on one process; where there are several, each runs the same with its own ``backend``.

    ``kept``: a folder that takes what is needed to go on after each epoch (None: nothing is kept); ``identity``, plain
    JSON, says which fit it is, and only the same one goes on.
    """

    def __init__(
        self,
        model: PeftModel,
        backend: Backend,
        data: FitData,
        settings: LoraTraining,
        *,
        temperature: float,
        seed: int,
        watch: Watcher,
        kept: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        after_epoch: Callable[[Epoch], None] = lambda epoch: None,
    ) -> None:
        self._peft = model
        self._backend = backend
        self._data = data
        self._settings = settings
        self._temperature = temperature
        self._seed = seed
        self._watch = watch
        self._kept = kept
        self._identity = dict(identity or {})
        self._after_epoch = after_epoch
        self._device = next(model.parameters()).device
        self._openings = openings_of(data.avoided)
        self._epochs: list[Epoch] = []
        self._best: State = {}

    def run(self) -> Fitted:
        """Epochs until patience is out. Errors: ModelError for a loss that is not finite, or for want of memory."""
        try:
            self._resume()
            if not self._epochs:
                self._watch.stage("held-out answers", len(self._data.held_out.examples))
                self._finish_epoch(None, time.monotonic())
            while len(self._epochs) <= self._settings.epochs and self._patient():
                began = time.monotonic()
                number = len(self._epochs)
                self._watch.stage(f"epoch {number}", len(self._data.examples))
                loss = self._epoch(number)
                self._finish_epoch(loss, began)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise ModelError(_no_memory(self._settings)) from error
        except RuntimeError as error:
            if "allocate memory" in str(error) or "out of memory" in str(error):
                raise ModelError(_no_memory(self._settings)) from error
            raise
        return Fitted(self._best, tuple(self._epochs), self._best_epoch().number)

    def _best_epoch(self) -> Epoch:
        return min(self._epochs, key=lambda e: (e.divergence, e.number))

    def _patient(self) -> bool:
        return len(self._epochs) - 1 - self._best_epoch().number < self._settings.patience

    def _epoch(self, number: int) -> float:
        settings, world, rank = self._settings, self._backend.world, self._backend.rank
        rng = np.random.default_rng(derive_seed(self._seed, "epoch", number))
        anchored = settings.kl > 0.0 and any(len(e.response) > settings.kl_after for e in self._data.examples)
        losses = []
        self._backend.model.train()
        for step in epoch_steps(self._data.weights, settings.batch, world, settings.rows, rng):
            loss = 0.0
            for place, own in enumerate(step[rank]):
                value = pass_loss(
                    self._forward,
                    self._base if anchored else None,
                    [self._data.examples[i] for i in own.rows],
                    torch.as_tensor(own.counts),
                    device=self._device,
                    temperature=self._temperature,
                    kl=settings.kl,
                    kl_after=settings.kl_after,
                    openings=self._openings,
                )
                self._backend.backward(value, last=place == len(step[rank]) - 1)
                loss += float(value.detach())
            whole = float(np.sum(self._backend.gather(np.array([loss]))))
            if not math.isfinite(whole):
                raise ModelError(
                    f"epoch {number}: the loss is {whole}; lower training.learning_rate "
                    f"({settings.learning_rate:g}), or set training.dtype: float32"
                )
            self._backend.step()
            losses.append(whole)
            self._watch.step(sum(int((p.counts > 0).sum()) for passes in step for p in passes))
        return float(np.mean(losses))

    def _finish_epoch(self, loss: float | None, began: float) -> None:
        divergence = float(np.mean(self._divergences()))
        self._epochs.append(Epoch(len(self._epochs), loss, divergence, time.monotonic() - began))
        if self._best_epoch() is self._epochs[-1]:
            self._best = self._backend.factors()
        self._keep()
        self._after_epoch(self._epochs[-1])

    def _divergences(self) -> FloatArray:
        """[prompts] of the held-out ones, by the model as it is now."""
        examples, world = self._data.held_out.examples, self._backend.world
        log_q = np.zeros(len(examples))
        order = sorted(
            range(len(examples)), key=lambda i: len(examples[i].prompt) + len(examples[i].response)
        )
        rows = self._settings.rows
        self._backend.model.eval()
        with torch.no_grad():
            for start in range(0, len(order), rows * world):
                group = order[start : start + rows * world]
                own = group[self._backend.rank :: world] or group[:1]
                found = np.full(rows, np.nan)
                found[: len(own)] = self._log_probs([examples[i] for i in own])
                for rank, values in enumerate(self._backend.gather(found)):
                    log_q[group[rank::world]] = values[: len(group[rank::world])]
                if not self._epochs:
                    self._watch.step(len(group))
        if not np.isfinite(log_q).all():
            raise ModelError(
                "log-probabilities of held-out answers are not finite; lower training.learning_rate "
                f"({self._settings.learning_rate:g}), or set training.dtype: float32"
            )
        return self._data.held_out.divergences(log_q)

    def _log_probs(self, examples: list[Example]) -> FloatArray:
        batch = inputs(examples, self._device, self._openings)
        laws = log_laws(self._forward(batch), self._temperature)
        return answer_log_probs(laws, batch).double().cpu().numpy()

    @property
    def _forward(self) -> Forward:
        return lambda batch: forward(self._backend.model, batch)

    def _base(self, batch: Inputs) -> torch.Tensor:
        with self._peft.disable_adapter():
            return forward(self._peft, batch)

    def _keep(self) -> None:
        """A new folder each epoch; the old one counts until ``PROGRESS`` names the new."""
        if self._kept is None:
            return
        place = self._kept / f"epoch-{len(self._epochs) - 1}"
        place.mkdir(parents=True, exist_ok=True)
        self._backend.save(place)
        if self._backend.rank == 0:
            torch.save(self._best, place / BEST)
            told = {
                "identity": self._identity,
                "place": place.name,
                "epochs": [list(e) for e in self._epochs],
            }
            write_json_atomic(self._kept / PROGRESS, told)
            for old in self._kept.glob("epoch-*"):
                if old != place:
                    shutil.rmtree(old)

    def _resume(self) -> None:
        """Goes on after the last whole epoch of the same fit; anything else there is left behind."""
        if self._kept is None or not (path := self._kept / PROGRESS).is_file():
            return
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["identity"] != self._identity:
            return
        place = self._kept / told["place"]
        self._backend.load(place)
        self._best = torch.load(place / BEST, map_location="cpu", weights_only=True)
        self._epochs = [Epoch(*values) for values in told["epochs"]]


def kept_epochs(kept: Path, identity: Mapping[str, Any]) -> list[Epoch]:
    """What a fit has kept of its epochs, whoever runs it; nothing where there is no such fit."""
    try:
        told = json.loads((kept / PROGRESS).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [Epoch(*values) for values in told["epochs"]] if told["identity"] == identity else []


def _no_memory(settings: LoraTraining) -> str:
    return (
        f"not enough memory for passes of {settings.rows} answers; lower training.rows, set training.recompute: true "
        "or training.dtype: bfloat16, take shorter answers, or spread the model by backend: deepspeed with zero: 3"
    )
