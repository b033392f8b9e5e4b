"""``tailrisk perturb``: harmless rewordings of prompts, as groups that an audit reads. No text is printed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrisk.cli.guard import Verbose, guarded, say
from tailrisk.errors import ConfigError

if TYPE_CHECKING:
    from tailrisk.perturbations import LeftOut, Made
    from tailrisk.perturbations.paraphrase import Source
    from tailrisk.records import Prompt

CONFIGS = (".yaml", ".yml")
MOST_LISTED = 20


def _listed(value: bool) -> None:
    if value:
        from tailrisk.perturbations import RULES

        typer.echo("\n".join(RULES))
        raise typer.Exit


@guarded
def perturb(
    prompts_path: Annotated[
        Path,
        typer.Argument(
            metavar="PROMPTS", help="A file of prompts, or an audit's YAML file.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The jsonl file to write.")],
    kinds: Annotated[
        str, typer.Option("--kinds", help="Kinds by rule, with commas between them; all, or none.")
    ] = "all",
    list_kinds: Annotated[
        bool,
        typer.Option("--list", help="List the kinds by rule and stop.", callback=_listed, is_eager=True),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="IDS", help="These prompts alone, with commas between them."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed makes the same texts.")] = 0,
    rate: Annotated[
        float, typer.Option("--rate", min=0.0, max=1.0, help="Part of the words that have a typing mistake.")
    ] = 0.1,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Texts of your own: rows with base, text and perhaps name."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--paraphrase",
            metavar="MODEL",
            help="A language model that rewords: with --url its name there, else smollm2, a folder or a hub id.",
        ),
    ] = None,
    each: Annotated[
        int, typer.Option("--paraphrases", min=1, max=200, help="Paraphrases of each prompt.")
    ] = 5,
    url: Annotated[
        str | None, typer.Option("--url", help="OpenAI-compatible API with the model, http://host:8000/v1.")
    ] = None,
    key_env: Annotated[
        str | None, typer.Option("--key-env", metavar="NAME", help="Environment variable with the API's key.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the model behind --url.")] = 0.9,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds that one request may take.")] = 60.0,
    patience: Annotated[
        float, typer.Option("--patience", help="Seconds that an outage is waited for.")
    ] = 300.0,
    calls: Annotated[int | None, typer.Option("--calls", help="Requests to --url at most.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Of a model on this machine.")] = "bfloat16",
    meaning: Annotated[
        str | None,
        typer.Option(
            "--meaning",
            metavar="MODEL",
            help="A sentence-transformers model (a folder or a hub id) that checks that the meaning is kept.",
        ),
    ] = None,
    least: Annotated[
        float, typer.Option("--min-cosine", min=-1.0, max=1.0, help="Less alike by --meaning is left out.")
    ] = 0.7,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and ids as JSON on stdout.")] = False,
    verbose: Verbose = False,
) -> None:
    """Write each prompt and harmless rewordings of it as a group, ready to be audited.

    Example: tailrisk perturb examples/quickstart/prompts.jsonl --out perturbed.jsonl
    """
    from tailrisk.perturbations import RULES, make_groups

    chosen = _kinds(kinds, list(RULES))
    if out.suffix.lower() != ".jsonl":
        raise ConfigError(f"--out: {out}: is written as jsonl; name a file that ends in .jsonl")
    bases = _bases(prompts_path, only)
    source = None
    if model is not None:
        source = _source(model, url, key_env, temperature, timeout, patience, calls, dtype, seed)
    elif url is not None or key_env is not None:
        raise ConfigError("--url and --key-env go with --paraphrase, which names the model")
    more: dict[str, list[Any]] = {}
    if from_ is not None:
        from tailrisk.perturbations.ownfile import read_own

        more = read_own(from_, bases)
    same = None
    if meaning is not None:
        from tailrisk.perturbations.meaning import embedding

        same = embedding(meaning, Path.cwd())
    if source is not None:
        from tailrisk.perturbations.paraphrase import paraphrases

        for base, proposed in paraphrases(bases, each, source).items():
            more.setdefault(base, []).extend(proposed)
    made = make_groups(bases, chosen, seed=seed, rate=rate, more=more, same=same, least=least)
    if not made.kinds:
        raise ConfigError(
            "nothing was made: every perturbation was left out, or no kind applies to these prompts"
            + "".join(f"\n  {line}" for line in _left_out(made.left_out))
        )
    _write(out, made.prompts)
    if as_json:
        typer.echo(json.dumps(_as_json(out, made, len(bases)), allow_nan=False))
        return
    for line in _told(out, made, len(bases), same is not None):
        typer.echo(line)


def _kinds(wanted: str, known: list[str]) -> list[str]:
    from difflib import get_close_matches

    if wanted in ("all", "none"):
        return known if wanted == "all" else []
    names = list(dict.fromkeys(name.strip() for name in wanted.split(",") if name.strip()))
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; one of {', '.join(known)}"
            raise ConfigError(f"--kinds: no kind {name[:40]!r}{hint}")
    return [name for name in known if name in names]


def _bases(path: Path, only: str | None) -> list[Prompt]:
    from tailrisk.config import PromptsConfig
    from tailrisk.configfile import load_config
    from tailrisk.prompts import load_prompts, read_prompts

    if path.suffix.lower() in CONFIGS:
        bases = load_prompts(load_config(path, ()))
    else:
        bases = read_prompts(path, PromptsConfig(path=str(path)), "PROMPTS")
    if only is None:
        return bases
    wanted = list(dict.fromkeys(name.strip() for name in only.split(",") if name.strip()))
    by_id = {p.id: p for p in bases}
    if missing := [name for name in wanted if name not in by_id]:
        raise ConfigError(f"--only: no prompt with the id {missing[0][:128]!r} in {path}")
    return [p for p in bases if p.id in set(wanted)]


def _source(
    model: str,
    url: str | None,
    key_env: str | None,
    temperature: float,
    timeout: float,
    patience: float,
    calls: int | None,
    dtype: str,
    seed: int,
) -> Source:
    if url is None:
        if key_env is not None:
            raise ConfigError("--key-env goes with --url; a model on this machine needs no key")
        from tailrisk.perturbations.local import local_source

        def told(done: int, of: int) -> None:
            if done == of or (done and done % 10 == 0):
                say(f"paraphrases: {done} of {of}")

        return local_source(model, Path.cwd(), dtype=dtype, seed=seed, told=told)
    from pydantic import ValidationError

    from tailrisk.perturbations.endpoint import OPTIONS, ParaphraseEndpoint, endpoint_source

    try:
        spec = ParaphraseEndpoint(
            url=url, model=model, key_env=key_env, temperature=temperature, seed=seed,
            timeout_s=timeout, patience_s=patience, most_calls=calls,
        )  # fmt: skip
    except ValidationError as error:
        # Without the value: what was given as the name of a key may be the key.
        first = error.errors(include_input=False, include_url=False)[0]
        field = str(first["loc"][0])
        raise ConfigError(
            f"{OPTIONS.get(field, f'--{field}')}: {first['msg'].removeprefix('Value error, ')}"
        ) from None
    return endpoint_source(spec)


def _write(out: Path, prompts: list[Prompt]) -> None:
    from tailrisk.perturbations import row_of
    from tailrisk.store.atomic import replacing

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            lines = (json.dumps(row_of(prompt), ensure_ascii=False) + "\n" for prompt in prompts)
            temporary.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--out: {out}: cannot be written ({error.strerror})") from None


def _told(out: Path, made: Made, bases: int, compared: bool) -> list[str]:
    total = len(made.prompts) - bases
    lines = [
        f"{out}: {bases} prompts and {total} perturbations of {len(made.kinds)} kinds",
        *(f"  {n:>5}  {kind}" for kind, n in made.kinds.items()),
    ]
    alone = bases - len({p.group for p in made.prompts if p.perturbation is not None})
    if alone:
        lines.append(f"{alone} prompts have no perturbation")
    lines += _left_out(made.left_out)
    if not compared:
        lines.append(
            "meaning: rules checked by their words only; --meaning MODEL compares sentence embeddings"
        )
    elif made.compared:
        lines.append(f"meaning: {made.compared} compared by sentence embeddings")
    lines.append("next: name the file as prompts.path of an audit")
    return lines


def _left_out(left_out: list[LeftOut]) -> list[str]:
    """Counts by reason, with ids where somebody should look."""
    lines = [f"left out, {why}: {n}" for why, n in sorted(Counter(x.why for x in left_out).items())]
    telling = [x for x in left_out if x.why in ("meaning", "failed")]
    lines += [f"  {x.id}: {x.why}{f' ({x.detail})' if x.detail else ''}" for x in telling[:MOST_LISTED]]
    if len(telling) > MOST_LISTED:
        lines.append(f"  and {len(telling) - MOST_LISTED} more; --json lists them all")
    return lines


def _as_json(out: Path, made: Made, bases: int) -> dict[str, Any]:
    return {
        "file": str(out),
        "prompts": bases,
        "perturbations": len(made.prompts) - bases,
        "kinds": dict(made.kinds),
        "compared": made.compared,
        "left_out": [x._asdict() for x in made.left_out],
    }
