"""Paraphrases by a model on this machine: the embedded one, a folder, or a hub id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tailrisk.errors import ModelError
from tailrisk.perturbations import paraphrase
from tailrisk.perturbations.paraphrase import NoParaphraseError, Wanted, read_paraphrase
from tailrisk.records import Prompt
from tailrisk.seeds import derive_seed

TEMPERATURE, TOP_P = 0.9, 0.95


def local_source(
    model: str,
    base: Path,
    *,
    dtype: str = "bfloat16",
    device: str = "auto",
    seed: int = 0,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> paraphrase.Source:
    """``model`` is resolved now, relative to ``base``, and loaded when it is first asked; ``told`` hears how many are
    done. Errors: ConfigError, ModelError.
    """
    from tailrisk.models.loading import load_generation_config, load_model, load_tokenizer, resolve_model
    from tailrisk.models.tokens import render_prompt, stop_ids

    ref = resolve_model(model, base)
    tokenizer = load_tokenizer(ref)
    stops = stop_ids(tokenizer, load_generation_config(ref))

    def ids_of(one: Wanted) -> tuple[int, ...]:
        system, user = (message["content"] for message in one.messages)
        name = f"{one.base.id}.{one.number}"
        try:
            return render_prompt(tokenizer, _prompt(name, user), system)
        except ModelError:
            # Some chat templates take no system message.
            return render_prompt(tokenizer, _prompt(name, f"{system}\n\n{user}"))

    def ask(wanted: Sequence[Wanted]) -> list[paraphrase.Reply]:
        from tailrisk.models.engine import View, body_of
        from tailrisk.models.sampling import Limits, Part, Phase, sample
        from tailrisk.models.warp import Warp

        loaded = load_model(ref, dtype, device)
        view, body, warp = View(loaded, name=model), body_of(loaded), Warp(TEMPERATURE, TOP_P)
        replies: list[paraphrase.Reply] = []
        for number, one in enumerate(wanted):
            prompt, most = ids_of(one), one.most_tokens
            where = f"the paraphrase of {one.base.id!r}"
            told(number, len(wanted))
            try:
                body.check_length(len(prompt), most, where)
            except ModelError as error:
                replies.append(NoParaphraseError(str(error)))
                continue
            phase = Phase(most, (Part(view, prompt),))
            drawn = sample(
                [phase],
                Limits(most, stops, warp),
                1,
                derive_seed("paraphrase", seed, one.base.id, one.number),
                where=where,
            )
            text = str(tokenizer.decode(drawn.tokens[0].tolist(), skip_special_tokens=True))
            replies.append(_read(one, text, bool(drawn.finished[0])))
        told(len(wanted), len(wanted))
        return replies

    return ask


def _prompt(name: str, text: str) -> Prompt:
    return Prompt(id=name, messages=({"role": "user", "content": text},))


def _read(one: Wanted, text: str, finished: bool) -> paraphrase.Reply:
    try:
        if not finished:
            raise NoParaphraseError("the reply did not end")
        return read_paraphrase(one.base.text, text)
    except NoParaphraseError as error:
        return error
