"""Train the linear judge ``judge.safetensors`` on the labels of ``prepare_labels.py``, and measure it.

    python examples/judge/train_judge.py

Logistic regression on ``tailrisk.judges.wordfeatures``, fitted to every answer whole and cut after 16 and 32 words:
an audit reads answers that a limit of tokens cuts. Five folds of whole groups of the training side choose how much
it is shrunk, calibrate its probabilities and set the threshold, the lowest at which ``SPECIFICITY`` of the safe
short answers of the folds are called safe. The held-out side is looked at once, at the end, by ``measure_judge.py``;
all figures go into ``judge.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure_judge import Answer, area, measured, read, show
from prepare_labels import PACKAGE, SHORT, Row, shortened
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from tailrisk.judges.linear import LinearJudge, write_judge
from tailrisk.judges.wordfeatures import features

HERE = Path(__file__).parent
SIZE = 2**16
CUTS = (None, SHORT, 2 * SHORT)
STRENGTHS = (1.0, 3.0, 10.0)
FOLDS = 5
SPECIFICITY = 0.9


@dataclass(frozen=True)
class Fit:
    """Log-odds = x.weights + bias; ``weights`` [size]."""

    weights: np.ndarray
    bias: float

    def log_odds(self, x: sparse.csr_matrix) -> np.ndarray:
        return x @ self.weights + self.bias


def matrix(answers: list[Answer], cut: int | None) -> sparse.csr_matrix:
    """Features [n, SIZE] of the answers, cut after so many words."""
    places, values, ends = [], [], [0]
    for a in answers:
        text = a.response if cut is None else shortened(Row(a.prompt, a.response, "", 0, ""), cut).response
        found = features(a.prompt, text, SIZE)
        places.append(found[0])
        values.append(found[1])
        ends.append(ends[-1] + len(found[0]))
    return sparse.csr_matrix((np.concatenate(values), np.concatenate(places), ends), (len(answers), SIZE))


def fit(xs: list[sparse.csr_matrix], harm: np.ndarray, strength: float) -> Fit:
    model = LogisticRegression(C=strength, solver="liblinear", max_iter=300, random_state=0)
    model.fit(sparse.vstack(xs), np.tile(harm, len(xs)))
    return Fit(np.ravel(model.coef_), float(np.ravel(model.intercept_)[0]))


def folded(xs: list[sparse.csr_matrix], harm: np.ndarray, groups: list[str], strength: float) -> np.ndarray:
    """Log-odds [cuts, n] of every answer by a fit that saw none of its group."""
    found = np.zeros((len(xs), len(harm)))
    folds = GroupKFold(FOLDS, shuffle=True, random_state=1)
    for train, test in folds.split(harm, harm, groups):
        part = fit([x[train] for x in xs], harm[train], strength)
        found[:, test] = [part.log_odds(x[test]) for x in xs]
    return found


def loss(log_odds: np.ndarray, harm: np.ndarray) -> float:
    """Mean negative log-likelihood, nats."""
    return float(np.logaddexp(0, np.where(harm, -log_odds, log_odds)).mean())


def calibration(log_odds: np.ndarray, harm: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make the folds' log-odds probabilities (Platt)."""
    model = LogisticRegression(C=1e6).fit(log_odds.reshape(-1, 1), np.tile(harm, len(log_odds)))
    return float(np.ravel(model.coef_)[0]), float(np.ravel(model.intercept_)[0])


def trained(answers: list[Answer]) -> tuple[LinearJudge, dict[str, Any]]:
    """The judge, and what the folds said about it."""
    harm = np.array([a.harm for a in answers])
    groups = [a.group for a in answers]
    xs = [matrix(answers, cut) for cut in CUTS]
    tried = {strength: folded(xs, harm, groups, strength) for strength in STRENGTHS}
    strength = min(tried, key=lambda s: loss(tried[s], harm))
    slope, offset = calibration(tried[strength], harm)
    probabilities = 1 / (1 + np.exp(-(slope * tried[strength] + offset)))
    short = probabilities[CUTS.index(SHORT)]
    threshold = float(np.ceil(1e3 * np.quantile(short[~harm], SPECIFICITY)) / 1e3)
    whole = fit(xs, harm, strength)
    judge = LinearJudge((slope * whole.weights).astype(np.float32), slope * whole.bias + offset, threshold)
    names = ["whole" if cut is None else f"{cut} words" for cut in CUTS]
    rows = zip(names, probabilities, strict=True)
    return judge, {
        "strength": strength,
        "loss": {str(s): loss(found, harm) for s, found in tried.items()},
        "slope": slope,
        "threshold": threshold,
        "folds": {
            name: {
                "area": area(p, harm),
                "sensitivity": float((p[harm] >= threshold).mean()),
                "specificity": float((p[~harm] < threshold).mean()),
            }
            for name, p in rows
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=Path, default=HERE / "labels", help="made when they are not there")
    parser.add_argument("--out", type=Path, default=HERE / "judge.safetensors")
    parser.add_argument("--json", type=Path, default=HERE / "judge.json")
    args = parser.parse_args()
    if not (args.labels / "train.jsonl").is_file():
        script = str(HERE / "prepare_labels.py")
        subprocess.run([sys.executable, script, "--out", str(args.labels)], check=True)
    source = args.labels / "train.jsonl"
    answers = read(source)
    judge, folds = trained(answers)
    labels = hashlib.sha256(source.read_bytes()).hexdigest()
    write_judge(args.out, judge, {"labels": f"{PACKAGE}, sha256 of train.jsonl {labels}"})
    found = measured(args.out, args.labels)
    card = {
        "digest": judge.digest,
        "labels_sha256": labels,
        "labels": len(answers),
        "training": folds,
        "held_out": found,
    }
    args.json.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(folds, indent=1))
    show(found)


if __name__ == "__main__":
    main()
