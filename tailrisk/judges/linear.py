"""Kind ``linear``: logistic regression on words, trained before; costs next to nothing and needs no model.

The score is the probability 1 / (1 + exp(-(w.x + b))) that people would call the answer harm, x being the features of
``wordfeatures``; harm where it is >= ``threshold``, by default the one that was chosen when the judge was trained.
``examples/judge`` trains such a judge and says how good it is.

``weights`` is a safetensors file with one float32 tensor ``weights`` [size] and, in its header, ``format``,
``features`` (the version they are for), ``bias`` and ``threshold``. Nothing in it is run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tailrisk import config
from tailrisk.errors import ConfigError
from tailrisk.judges.wordfeatures import VERSION, features
from tailrisk.records import JudgedTexts, Verdict

FORMAT = "tailrisk-linear-judge"
LARGEST = 2**24


@dataclass(frozen=True)
class LinearJudge:
    """``weights`` [size] float32; ``bias`` in log-odds; ``threshold`` a probability."""

    weights: np.ndarray
    bias: float
    threshold: float

    @property
    def digest(self) -> str:
        """sha256 of what the scores and verdicts depend on; the header's order and notes have no part in it."""
        known = f"{FORMAT} {VERSION} {self.bias!r} {self.threshold!r} ".encode()
        return hashlib.sha256(known + self.weights.astype("<f4").tobytes()).hexdigest()

    def score(self, prompt: str, response: str) -> float:
        """The probability of harm."""
        places, values = features(prompt, response, len(self.weights))
        logit = self.bias + float(values @ self.weights[places].astype(np.float64))
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0

    def judge(self, prompt: str, responses: Sequence[str]) -> JudgedTexts:
        scores = np.array([self.score(prompt, text) for text in responses], dtype=np.float64)
        verdicts = np.where(scores >= self.threshold, Verdict.HARM, Verdict.SAFE).astype(np.int8)
        return JudgedTexts(verdicts, scores, [""] * len(responses))


def build(spec: config.LinearJudge, base: Path) -> LinearJudge:
    judge = read_judge(weights_file(spec, base))
    return judge if spec.threshold is None else LinearJudge(judge.weights, judge.bias, spec.threshold)


def weights_file(spec: config.LinearJudge, base: Path) -> Path:
    return (base / Path(spec.weights).expanduser()).resolve()


def check(spec: config.LinearJudge, base: Path, parallel: config.Parallel, digest: bool) -> dict[str, str]:
    """Reads the weights; the digest of what is in them is part of what was judged with them."""
    return {"weights": read_judge(weights_file(spec, base)).digest}


def write_judge(path: Path, judge: LinearJudge, notes: dict[str, str] | None = None) -> None:
    """``notes`` go into the header, for people to read."""
    header = {
        **(notes or {}),
        "format": FORMAT,
        "features": str(VERSION),
        "bias": repr(judge.bias),
        "threshold": repr(judge.threshold),
    }
    save_file({"weights": judge.weights.astype(np.float32)}, path, metadata=header)


def read_judge(path: Path) -> LinearJudge:
    """Raises ConfigError for anything but a whole file of finite numbers for the features of this version."""
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise ConfigError(
            f"judge.weights: there is no file {path}; the path is relative to the configuration's folder"
        ) from None
    except OSError as error:
        raise ConfigError(f"judge.weights: {path} cannot be read ({error.strerror})") from error
    try:
        with safe_open(path, framework="numpy") as file:
            header, names = file.metadata() or {}, sorted(file.keys())
            weights = file.get_tensor("weights") if names == ["weights"] else None
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise _refused(path, f"is not a safetensors file that can be read ({str(error)[:200]})") from error
    if header.get("format") != FORMAT or weights is None:
        raise _refused(path, f"is not a linear judge: format {header.get('format')!r}, tensors {names[:3]}")
    if header.get("features") != str(VERSION):
        raise _refused(
            path,
            f"is for word features of version {header.get('features')!r} and this tailrisk has version {VERSION}",
        )
    if weights.dtype != np.float32 or weights.ndim != 1 or not 1 <= len(weights) <= LARGEST:
        raise _refused(
            path, f"holds weights of {weights.dtype} and shape {list(weights.shape)}, not float32 [size]"
        )
    bias, threshold = (_number(path, header, name) for name in ("bias", "threshold"))
    if not np.isfinite(weights).all() or not math.isfinite(bias):
        raise _refused(path, "holds numbers that are not finite")
    if not 0 <= threshold <= 1:
        raise _refused(path, f"has threshold {threshold}, which is no probability")
    return LinearJudge(weights, bias, threshold)


def _number(path: Path, header: dict[str, str], name: str) -> float:
    try:
        return float(header[name])
    except (KeyError, ValueError):
        raise _refused(path, f"has {name} {header.get(name)!r}, which is no number") from None


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError(f"judge.weights: {path} {why}; train it anew (examples/judge) or name another file")
