"""What the kinds share whose judge is a model: texts, checks without weights, and readings as verdicts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from tailrisk.config import ModelJudge, Parallel
from tailrisk.errors import ConfigError, TailriskError
from tailrisk.judges.rubrics import Reading
from tailrisk.records import JudgedTexts, Verdict

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from tailrisk.models.reader import NextToken, Reader

Ids = tuple[int, ...]
T = TypeVar("T")
_ERROR_LENGTH = 400


class Parts(NamedTuple):
    """A judge's model without its weights; ``digests``: of its files, by what they are."""

    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    digests: dict[str, str]


def check_parts(
    spec: ModelJudge, base: Path, parallel: Parallel, digest: bool, *, classes: bool = False
) -> Parts:
    """Reads all of a judge's model but its weights, and checks that its parts fit each other and the workers.
    ``digest``: the weights are hashed, for which those of a hub model are fetched.

    Errors: ConfigError, ModelError that name the field.
    """
    from tailrisk.models.digests import text_digest
    from tailrisk.models.interventions.adapter import adapter_digest, adapter_problems, skeleton
    from tailrisk.models.loading import (
        adapter_folder,
        check_device,
        load_config,
        load_tokenizer,
        model_digest,
        resolve_model,
    )
    from tailrisk.models.sharding import check_parallel

    with at("judge.device"):
        check_device(spec.device)
    with at("judge.model"):
        ref = resolve_model(spec.model, base)
        config, tokenizer = load_config(ref), load_tokenizer(ref)
        bare = None if classes else skeleton(config)
        check_parallel(parallel, config, "cluster.judges")
        digests = {"tokenizer": _tokenizer_digest(tokenizer, text_digest)}
        if digest:
            digests["model"] = model_digest(ref)
    if spec.adapter is not None:
        with at("judge.adapter"):
            folder = adapter_folder(spec.adapter, base)
            if bare is not None and (problems := adapter_problems(folder, bare)):
                raise type(problems[0])("; ".join(str(p) for p in problems))
            digests["adapter"] = adapter_digest(folder)
    return Parts(config, tokenizer, digests)


@contextmanager
def at(field: str) -> Iterator[None]:
    """Errors that are raised inside name the field."""
    try:
        yield
    except TailriskError as error:
        text = str(error)
        raise type(error)(text if text.startswith(f"{field}: ") else f"{field}: {text}") from error


def text_file(name: str) -> str:
    """A text that judges are asked with."""
    return resources.files("tailrisk.judges").joinpath("texts", f"{name}.txt").read_text("utf-8")


def texts_digest(*parts: object) -> str:
    """sha256 of what decides how a judge is asked and read."""
    digest = hashlib.sha256()
    for part in parts:
        data = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def failed(reason: str) -> Reading:
    return Reading(math.nan, reason)


def verdicts(readings: Sequence[Reading], threshold: float) -> JudgedTexts:
    """Harm at or above the threshold; undetermined, with the reason, where there is no score."""
    found = np.full(len(readings), Verdict.UNDETERMINED, dtype=np.int8)
    scores = np.array([reading.score for reading in readings], dtype=np.float64)
    settled = ~np.isnan(scores)
    found[settled] = np.where(scores[settled] >= threshold, Verdict.HARM, Verdict.SAFE)
    return JudgedTexts(found, scores, [_printable(reading.reason) for reading in readings])


def asked(ids_of: Callable[[str], Ids], texts: Sequence[str]) -> list[Ids | Reading]:
    """The token ids of each text's question, or why there are none: a tokenizer or a chat template may refuse some."""
    found: list[Ids | Reading] = []
    for text in texts:
        try:
            found.append(ids_of(text))
        except Exception as error:
            found.append(failed(f"the tokenizer or the chat template refused it ({type(error).__name__})"))
    return found


def read_next(
    reader: Reader, prompts: Sequence[Ids | Reading], ids: Sequence[int], read: Callable[[NextToken], T]
) -> list[Reading | T]:
    """One pass over the questions: what the law of the next token says, or why it is not known."""
    found = [fits(reader, prompt) for prompt in prompts]
    open_ = [prompt for prompt in found if not isinstance(prompt, Reading)]
    laws = iter(reader.next_tokens(open_, ids)) if open_ else iter(())
    return [prompt if isinstance(prompt, Reading) else _finite(next(laws), read) for prompt in found]


def fits(reader: Reader, prompt: Ids | Reading, new: int = 1) -> Ids | Reading:
    """The question, or why the model cannot read it."""
    if isinstance(prompt, Reading):
        return prompt
    reason = reader.misfit(prompt, new)
    return failed(f"{reason} (judge.clip reads fewer tokens of the answer)") if reason else prompt


def clipped(tokenizer: PreTrainedTokenizerBase, text: str, clip: int | None) -> str:
    """The first ``clip`` tokens of a text as text; texts that are not longer stay as they are."""
    if clip is None:
        return text
    ids: Any = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return text if len(ids) <= clip else str(tokenizer.decode(ids[:clip], clean_up_tokenization_spaces=False))


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> Ids:
    """Token ids of a whole text, with the special tokens that the tokenizer adds."""
    ids: Any = tokenizer(text, verbose=False)["input_ids"]
    return tuple(int(i) for i in ids)


def one_token(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    """Errors: ConfigError where the word is not one token of the vocabulary."""
    found = tokenizer.get_vocab().get(word)
    if found is None:
        raise ConfigError(
            f"{word!r} is no token of this model's tokenizer, so its probability cannot be read; is it the right model?"
        )
    return int(found)


def _finite(law: NextToken, read: Callable[[NextToken], T]) -> Reading | T:
    if not (np.isfinite(law.asked).all() and math.isfinite(law.highest)):
        return failed("the model's outputs are not finite (try dtype: float32)")
    return read(law)


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase, digest: Callable[..., str]) -> str:
    """Of the vocabulary, of how text is split into it, and of the chat template where there is one."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    split = "" if backend is None else backend.to_str()
    words = repr(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    return digest(
        split, words, str(getattr(tokenizer, "chat_template", None)), repr(tokenizer.special_tokens_map)
    )


def _printable(text: str) -> str:
    return text[:_ERROR_LENGTH].encode("utf-8", "replace").decode()
