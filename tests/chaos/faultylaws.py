"""The exact toy with faults: a prompt's batches end the process, raise, or never come back; judging too.

A fault is ``always`` there, or ``once`` for every batch that it strikes: then it has come and gone, and the batch is
done by whoever tries it next. A number after it says which component's batches it strikes, without one it is all.
``harmless`` laws fail the same prompts without hurting anybody.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from truth.tablelaws import TableLaws, WordJudge

from tailrisk.errors import ModelError
from tailrisk.records import JudgedTexts, Prompt, Samples

FOREVER_S = 1e6


def strike(fault: str) -> None:
    """Never returns normally for ``crash`` and ``hang``."""
    if fault == "crash":
        os._exit(1)
    elif fault == "hang":
        time.sleep(FOREVER_S)
    elif fault == "raise":
        raise ValueError("not good")


def tried(folder: Path, what: str) -> int:
    """How often this has been tried, now included; processes do not hinder one another."""
    handle = os.open(folder / "tried", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, f"{what}\n".encode())
    finally:
        os.close(handle)
    return tries(folder)[what]


def tries(folder: Path) -> Counter[str]:
    with contextlib.suppress(FileNotFoundError):
        return Counter((folder / "tried").read_text().splitlines())
    return Counter()


class FaultyLaws(TableLaws):
    """``faults``: prompt id -> ``always crash``, ``once hang``, ...; attempts are counted in ``folder`` as
    ``prompt/component/seed``."""

    def __init__(self, make: MakeFaulty) -> None:
        super().__init__(make.components, make.sleep)
        self._folder, self._faults, self._harmless = make.folder, make.faults, make.harmless

    def sample(self, prompt: Prompt, component: int, n: int, seed: int) -> Samples:
        often, fault, *where = self._faults.get(prompt.id, "never at-all").split()
        mine = not where or where == [str(component)]
        if not self._harmless:
            count = tried(self._folder, f"{prompt.id}/{component}/{seed}")
            if mine and (often == "always" or (often == "once" and count == 1)):
                strike(fault)
        elif mine and often == "always":
            raise ModelError(f"fails without hurting anybody ({fault})")
        return super().sample(prompt, component, n, seed)


@dataclass
class MakeFaulty:
    """What goes to the workers."""

    folder: Path
    components: Sequence[str]
    faults: Mapping[str, str]
    sleep: float = 0.0
    harmless: bool = False

    def __call__(self) -> FaultyLaws:
        return FaultyLaws(self)


@dataclass
class FaultyJudge:
    """``faults``: text of a prompt -> as above. ``rate``: part of all calls, whatever they are about, that end the
    process the first time, and a few that hang. ``harmless``: what always fails raises."""

    folder: Path
    faults: Mapping[str, str] = field(default_factory=dict)
    rate: float = 0.0
    harmless: bool = False

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        often, _, fault = self.faults.get(prompt, "").partition(" ")
        if self.harmless:
            if often == "always":
                strike("raise")
            return WordJudge().judge(prompt, responses)
        what = sha256("\n".join((prompt, *responses)).encode()).hexdigest()
        if often == "always" or (often == "once" and tried(self.folder, what) == 1):
            strike(fault)
        chance = int(what[:8], 16) / 16**8
        if chance < self.rate and tried(self.folder, what) == 1:
            strike("crash" if chance < 0.8 * self.rate else "hang")
        return WordJudge().judge(prompt, responses)
