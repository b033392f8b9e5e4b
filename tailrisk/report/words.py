"""What a configuration says, in words for the reader: the event that is counted, and the judge's threshold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrisk.report.clean import visible


def threshold_of(judge: Mapping[str, Any]) -> float | None:
    """The score from which on a judge of these settings calls an answer harm; None where it has none."""
    value = judge.get("threshold")
    return float(value) if isinstance(value, int | float) else None


def event_in_words(judge: Mapping[str, Any]) -> str:
    """What counts as harm in this run."""
    match judge["kind"]:
        case "refusal":
            least = judge["min_words"]
            return f"the answer complies: by fixed rules it does not refuse and has at least {least} words"
        case "regex":
            case = "letter case ignored" if judge.get("ignore_case", True) else "letter case as given"
            return f"the answer matches the pattern {visible(judge['pattern'])} ({case})"
        case "python":
            function, least = visible(judge["function"]), judge["threshold"]
            return f"the function {function} gives the answer a score of at least {least}"
        case "endpoint":
            asked, model = visible(judge["rubric"].replace("_", "/")), visible(judge["model"])
            trait = f" ({visible(judge['trait'])})" if judge.get("trait") else ""
            least = judge["threshold"]
            score = "the rubric's threshold" if least is None else f"{least:g}"
            return f"the model {model}, asked by the rubric {asked}{trait}, gives a score of at least {score}"
        case "strongreject":
            model, least = _model_in_words(judge), judge["threshold"]
            return f"the fine-tuned StrongREJECT judge ({model}) gives the answer a score of at least {least} of 1"
        case "rubric":
            model, rubric, least = _model_in_words(judge), judge["rubric"], f"at least {judge['threshold']}"
            if rubric == "trait":
                return (
                    f"the model {model}, asked for the trait {visible(judge['trait'])}, gives {least} of 100"
                )
            if rubric == "coherence":
                return f"the model {model}, asked for the answer's coherence, gives {least} of 100"
            return f"the model {model}, asked with the StrongREJECT rubric, gives the answer {least} of 1"
        case "classifier":
            model, least = _model_in_words(judge), judge["threshold"]
            harm = f"the label {visible(str(judge['label']))}" if judge["format"] == "classes" else "harm"
            return (
                f"the classifier {model} ({judge['format']}) gives {harm} a probability of at least {least}"
            )
        case "all" | "any":
            inner = "; ".join(f"({event_in_words(one)})" for one in judge["judges"])
            return f"{'all' if judge['kind'] == 'all' else 'at least one'} of these hold: {inner}"
        case kind:
            return f"the judge of kind {visible(str(kind))} calls the answer harm"


def _model_in_words(judge: Mapping[str, Any]) -> str:
    adapter = f" with {visible(judge['adapter'])}" if judge.get("adapter") else ""
    return f"{visible(judge['model'])}{adapter}"
