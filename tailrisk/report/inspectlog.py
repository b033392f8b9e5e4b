"""A run as a log of Inspect AI (``.eval``), which ``inspect view`` shows and ``inspect_ai.log`` reads.

One sample a draw. Its score is 1 for harm, 0 for a safe answer, and unscored where the judge had no verdict. A plain
mean of these scores is no estimate of anything, because the draws come from a mixture: the weight beside each makes it
one, and the run's own estimates are in the results.

The file is a zip archive of JSON documents, the models of ``inspect_ai.log`` written one by one; of a run of any size
one batch at a time is in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tailrisk.errors import ConfigError
from tailrisk.records import Prompt, Verdict
from tailrisk.report.clean import digest
from tailrisk.report.draws import REDACTED, Weighted
from tailrisk.store.atomic import replacing

if TYPE_CHECKING:
    from tailrisk.store import Manifest

SCORER = "tailrisk"
INSTALL = "pip install 'lm-tailrisk[inspect]'"
NOTE = (
    "Draws come from a mixture of the target and proposals: a mean of scores is not a probability. The estimate of a "
    "prompt is the sum of weight * scale over its harmful draws; see estimates."
)


def require_inspect() -> None:
    """Errors: ConfigError, where Inspect AI is not installed."""
    try:
        import inspect_ai.log  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"--to inspect needs the package inspect-ai ({error}); install it: {INSTALL}, or export to csv or parquet"
        ) from None


def write_log(
    path: Path,
    manifest: Manifest,
    summary: Mapping[str, Any],
    draws: Iterable[Weighted],
    prompts: Mapping[str, Prompt],
    *,
    only: Mapping[str, Collection[int]] | None = None,
    redact: bool = False,
) -> int:
    """Writes ``path``; returns the number of samples. ``only``: batch key -> rows that are wanted (None: all draws).

    ``redact`` puts hashes in place of prompts and answers; ``prompts`` may then be empty.
    """
    writer = _Samples(manifest, prompts, redact=redact)
    n, unscored = 0, 0
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=5) as archive,
        tempfile.TemporaryFile(dir=path.parent) as summaries,
    ):
        summaries.write(b"[")
        for sample in _samples(writer, draws, only):
            archive.writestr(f"samples/{sample.id}_epoch_{sample.epoch}.json", _json(sample))
            summaries.write((b"," if n else b"") + _json(sample.summary()).encode("ascii"))
            n += 1
            unscored += isinstance(sample.scores[SCORER].value, float) and math.isnan(
                sample.scores[SCORER].value
            )
        summaries.write(b"]")
        header = _header(manifest, summary, n, unscored, partial=only is not None, redact=redact)
        start = {"version": header.version, "eval": header.eval, "plan": header.plan}
        parts = {
            key: value if isinstance(value, int) else json.loads(_json(value)) for key, value in start.items()
        }
        archive.writestr("_journal/start.json", json.dumps(parts))
        summaries.seek(0)
        with archive.open("summaries.json", "w", force_zip64=True) as out:
            while block := summaries.read(1 << 20):
                out.write(block)
        archive.writestr("header.json", _json(header))
    return n


def _samples(
    writer: _Samples, draws: Iterable[Weighted], only: Mapping[str, Collection[int]] | None
) -> Iterator[Any]:
    for weighted in draws:
        rows: Iterable[int] = range(weighted.result.n)
        if only is not None:
            rows = only.get(weighted.result.batch.key, ())
        for i in rows:
            yield writer.sample(weighted, i)


def _json(model: Any) -> str:
    """A model of Inspect's as it writes it: absent values left out, ASCII, NaN as such for what is unscored."""
    return json.dumps(model.model_dump(mode="json", exclude_none=True), ensure_ascii=True)


class _Samples:
    """From draws to Inspect's samples."""

    def __init__(self, manifest: Manifest, prompts: Mapping[str, Prompt], *, redact: bool) -> None:
        self._names = manifest.component_names
        self._model = str(manifest.config["target"]["model"])
        self._redact = redact
        self._cards = {p["id"]: p for p in manifest.prompts}
        system = manifest.config["target"].get("system_prompt")
        self._system = digest(system) if system and redact else system
        self._prompts = prompts
        self._inputs: dict[str, list[Any]] = {}

    def sample(self, weighted: Weighted, i: int) -> Any:
        from inspect_ai.log import EvalSample  # pyright: ignore[reportMissingImports]
        from inspect_ai.model import (  # pyright: ignore[reportMissingImports]
            ChatCompletionChoice,
            ChatMessageAssistant,
            ModelOutput,
        )

        result = weighted.result
        batch = result.batch
        text = _utf8(digest(result.texts[i]) if self._redact else result.texts[i])
        said = ChatMessageAssistant(content=text, model=self._model, source="generate", id=f"{batch.key}/{i}")
        stop = "stop" if result.finished[i] else "max_tokens"
        output = ModelOutput(
            model=self._model, choices=[ChatCompletionChoice(message=said, stop_reason=stop)]
        )
        card = self._cards[batch.prompt_id]
        asked = self._input(batch.prompt_id)
        return EvalSample(
            # The numbers behind the prompt's id are three whatever the id holds, so no two draws have one name.
            id=f"{batch.prompt_id}-{batch.component}-{batch.index}-{i}",
            epoch=1,
            input=asked,
            target="",
            messages=[*asked, said],
            output=output,
            scores={SCORER: self._score(weighted, i)},
            metadata={"prompt_id": batch.prompt_id, "category": card["category"], "group": card["group"]},
        )

    def _input(self, prompt_id: str) -> list[Any]:
        from inspect_ai.model import (  # pyright: ignore[reportMissingImports]
            ChatMessageAssistant,
            ChatMessageSystem,
            ChatMessageUser,
        )

        if prompt_id not in self._inputs:
            kinds = {"user": ChatMessageUser, "assistant": ChatMessageAssistant, "system": ChatMessageSystem}
            if self._redact:
                said = [{"role": "user", "content": f"sha256 {self._cards[prompt_id]['digest']}"}]
            else:
                said = list(self._prompts[prompt_id].messages)
            if self._system:
                said.insert(0, {"role": "system", "content": self._system})
            self._inputs[prompt_id] = [
                kinds[m["role"]](content=_utf8(m["content"]), id=f"{prompt_id}/{n}")
                for n, m in enumerate(said)
            ]
        return self._inputs[prompt_id]

    def _score(self, weighted: Weighted, i: int) -> Any:
        from inspect_ai.scorer import Score  # pyright: ignore[reportMissingImports]

        result = weighted.result
        batch, verdict = result.batch, Verdict(int(result.verdicts[i]))
        log_q = [_finite(x) for x in result.log_q[i]]
        more = {
            "verdict": verdict.name.lower(),
            "judge_score": _finite(result.scores[i]),
            "weight": float(np.exp(weighted.log_w[i])),
            "scale": weighted.scale,
            "log_p": log_q[0],
            "log_q": dict(zip(self._names, log_q, strict=True)),
            "log_q_sample": _finite(result.log_q_sample[i]),
            "component": self._names[batch.component],
            "batch_key": batch.key,
            "round": batch.round,
            "draw": i,
        }
        error = result.judge_errors[i] or None
        error = REDACTED if error and self._redact else error
        if verdict is Verdict.UNDETERMINED:
            return Score.unscored(reason="grader_failed", explanation=error, metadata=more)
        return Score(
            value=int(verdict is Verdict.HARM), answer=verdict.name.lower(), explanation=error, metadata=more
        )


def _header(
    manifest: Manifest, summary: Mapping[str, Any], n: int, unscored: int, *, partial: bool, redact: bool
) -> Any:
    from inspect_ai.log import (  # pyright: ignore[reportMissingImports]
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalPlan,
        EvalResults,
        EvalScore,
        EvalSpec,
        EvalStats,
    )
    from inspect_ai.model import GenerateConfig  # pyright: ignore[reportMissingImports]

    target, sampling = manifest.config["target"], manifest.config["target"]["sampling"]
    shown = dict(target)
    if redact and shown.get("system_prompt"):
        shown["system_prompt"] = digest(shown["system_prompt"])
    settings = GenerateConfig(
        temperature=sampling["temperature"],
        top_p=sampling["top_p"],
        top_k=sampling["top_k"] or None,
        max_tokens=sampling["max_new_tokens"],
        system_message=shown.get("system_prompt"),
    )
    risk = (summary.get("audit") or {}).get("mean_risk") or {}
    metrics = {}
    if risk.get("value") is not None:
        metrics["mean_risk"] = EvalMetric(
            name="mean_risk",
            value=risk["value"],
            metadata={"se": risk.get("se"), "prompts": risk.get("prompts")},
        )
    score = EvalScore(
        name=SCORER,
        scorer=SCORER,
        scored_samples=n - unscored,
        unscored_samples=unscored,
        metrics=metrics,
        metadata={"note": NOTE},
    )
    results = EvalResults(
        total_samples=n,
        completed_samples=n,
        scores=[score],
        metadata={
            "estimates": list(summary["estimates"]),
            "audit": summary.get("audit"),
            "heaviest_only": partial,
            "note": NOTE,
        },
    )
    name = str(manifest.config["run"]["name"])
    spec = EvalSpec(
        eval_id=_name_of(manifest),
        run_id=f"{name}-{manifest.config['run']['seed']}",
        created=manifest.created,
        task=f"tailrisk/{name}",
        task_id=name,
        dataset=EvalDataset(name=Path(manifest.config["prompts"]["path"]).name, samples=n, shuffled=False),
        model=str(target["model"]),
        model_generate_config=settings,
        config=EvalConfig(epochs=1),
        packages={k: v for k, v in manifest.versions.items() if k != "python"},
        metadata={
            "run": name,
            "target": shown,
            "judge": manifest.identity["judge"],
            "components": list(manifest.component_names),
            "hashes": manifest.hashes,
            "redacted": redact,
        },
    )
    stats = EvalStats(started_at=manifest.created, completed_at=manifest.created)
    return EvalLog(status="success", eval=spec, plan=EvalPlan(), results=results, stats=stats)


def _name_of(manifest: Manifest) -> str:
    """Of the run, no other run's."""
    known = json.dumps([manifest.identity, manifest.created], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()[:22]


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _utf8(text: str) -> str:
    """A decoder may leave half of a surrogate pair, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
