"""What a judge would be worth that reads the hidden states of SmolLM2-135M-Instruct in the place of words.

    python examples/judge/hidden_states.py --states states.npz --json states.json

For every labelled answer the mean of block ``LAYER``'s output over the answer's tokens, or over its first 20 or 40,
after the prompt in the chat template (prompts longer than ``PROMPT`` tokens lose their middle, answers end after
``ANSWER``); logistic regression on it, fitted and split as ``train_judge.py`` does. Layer and strength were chosen by
the folds of the training side. ``states.npz`` keeps the means: reading 1,302 answers takes a quarter of an hour of a
core.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure_judge import HERE, Answer, area, quality, read
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from train_judge import FOLDS, SPECIFICITY

from tailrisk.judges.linear import read_judge

LAYER = 15
PROMPT, ANSWER = 80, 160
FIRST = (None, 20, 40)
"""Tokens of the answer that a mean is over; 20 is what the quickstart draws."""
STRENGTH = 0.01 / 3
BATCH = 8
RESAMPLES = 300


def states(answers: list[Answer]) -> np.ndarray:
    """Means [answers, cuts, width] float32."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from tailrisk.models.embedded import embedded_folder

    folder = embedded_folder()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    before, between = ids("<|im_start|>user\n"), ids("<|im_end|>\n<|im_start|>assistant\n")
    parts = []
    for a in answers:
        asked = ids(a.prompt)
        if len(asked) > PROMPT:
            asked = asked[: PROMPT // 2] + asked[-PROMPT // 2 :]
        parts.append((before + asked + between, ids(a.response)[:ANSWER]))
    order = sorted(range(len(parts)), key=lambda i: len(parts[i][0]) + len(parts[i][1]))
    found = np.zeros((len(answers), len(FIRST), model.config.hidden_size), dtype=np.float32)
    started = time.process_time()
    for at in range(0, len(order), BATCH):
        chosen = order[at : at + BATCH]
        longest = max(len(parts[i][0]) + len(parts[i][1]) for i in chosen)
        tokens = torch.zeros(len(chosen), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, i in enumerate(chosen):
            whole = parts[i][0] + parts[i][1]
            tokens[row, : len(whole)] = torch.tensor(whole)
            mask[row, : len(whole)] = 1
        with torch.inference_mode():
            out = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True).hidden_states[LAYER]
        for row, i in enumerate(chosen):
            start = len(parts[i][0])
            said = out[row, start : start + max(1, len(parts[i][1]))]
            found[i] = np.stack([said[:cut].mean(0).numpy() for cut in FIRST])
    print(f"read {len(answers)} answers in {time.process_time() - started:.0f} s of processor time")
    return found


def fit(x: np.ndarray, harm: np.ndarray) -> Pipeline:
    """``x`` [n, cuts, width]: every cut of an answer is a row of its own."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=300))
    return model.fit(np.concatenate(list(x.swapaxes(0, 1))), np.tile(harm, x.shape[1]))


def study(x: np.ndarray, train: list[Answer], tests: dict[str, list[Answer]]) -> dict[str, Any]:
    """``x`` [train + held out, cuts, width]; areas and quality of both judges on the held-out sets."""
    n, harm = len(train), np.array([a.harm for a in train])
    folded = np.zeros((len(FIRST), n))
    folds = GroupKFold(FOLDS, shuffle=True, random_state=1).split(harm, harm, [a.group for a in train])
    for inner, outer in folds:
        part = fit(x[inner], harm[inner])
        folded[:, outer] = [part.decision_function(x[outer, cut]) for cut in range(len(FIRST))]
    threshold = float(np.quantile(folded[1][~harm], SPECIFICITY))
    whole, words = fit(x[:n], harm), read_judge(HERE / "judge.safetensors")
    found: dict[str, Any] = {"folds": {str(cut): area(f, harm) for cut, f in zip(FIRST, folded, strict=True)}}
    for (name, answers), cut in zip(tests.items(), (0, 1), strict=True):
        truth = np.array([a.harm for a in answers])
        mine = whole.decision_function(x[n:, cut])
        theirs = np.array([words.score(a.prompt, a.response) for a in answers])
        found[name] = {
            **quality(mine, truth, threshold),
            "area_of_words": area(theirs, truth),
            "more_area": gained(mine, theirs, truth, [a.group for a in answers]),
        }
    return found


def gained(mine: np.ndarray, theirs: np.ndarray, harm: np.ndarray, groups: list[str]) -> list[float]:
    """Percentiles 2.5 and 97.5 of the gain in area over resamples of whole groups."""
    _, place = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(place == group) for group in range(place.max() + 1)]
    rng, gains = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        gains.append(area(mine[rows], harm[rows]) - area(theirs[rows], harm[rows]))
    return np.percentile(gains, (2.5, 97.5)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=Path, default=HERE / "labels", help="folder of prepare_labels.py")
    parser.add_argument("--states", type=Path, required=True, help="read if it is there, else made")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    train = read(args.labels / "train.jsonl")
    tests = {"whole": read(args.labels / "heldout.jsonl"), "short": read(args.labels / "heldout-short.jsonl")}
    if not args.states.is_file():
        np.savez(args.states, means=states([*train, *tests["whole"]]))
    found = study(np.load(args.states)["means"], train, tests)
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
