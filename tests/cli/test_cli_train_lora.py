"""``tailrisk train lora`` on a model whose answers can all be listed: what it writes, and that it can be believed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakerun import blank_page
from mlflow import MlflowClient
from tinymodel import words
from training.lorakit import AUDIT, PROMPTS, audit_in, law_of
from trainkit import check_help, check_refused
from truth.exactllama import VOCAB, audited, harmful_ids, in_process
from truth.tablelaws import audit_in_memory

from tailrisk.audit.estimates import estimate_all
from tailrisk.audit.harvest import effective, harvest, joined
from tailrisk.audit.local import LocalExecutor
from tailrisk.audit.recovery import rebuild_folder
from tailrisk.cli import lorarounds, run, wiring
from tailrisk.cli.wiring import check
from tailrisk.config import RunConfig
from tailrisk.configfile import load_config
from tailrisk.errors import ConfigError
from tailrisk.judges import build_judge
from tailrisk.prompts import load_prompts
from tailrisk.proposals import build_laws, load_target
from tailrisk.records import BatchResult
from tailrisk.store import final_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    audit_in(folder)
    return folder


@pytest.fixture(scope="module")
def learned(folder: Path) -> Path:
    """What is learned after an audit by the same file: its MLflow run is the parent."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "on_ray", in_process)
        patch.setattr("tailrisk.report.render_report", blank_page)
        assert run(["audit", str(folder / "audit.yaml"), "--set", "budget.draws=300", "--quiet"]) in (0, 3)
        assert (
            run(["train", "lora", str(folder / "audit.yaml"), "--out", str(folder / "out"), "--quiet"]) == 0
        )
    return folder / "out"


pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.usefixtures("blank_reports")]


def test_it_comes_nearer_to_the_law_of_harm(learned: Path):
    cards = [json.loads((learned / f"adapter-{n}" / "card.json").read_text()) for n in (1, 2)]
    for card in cards:
        assert card["divergence"]["after"] < card["divergence"]["before"] - 1.0
        assert card["data"]["held_out_prompts"] == 3
    assert cards[1]["data"]["examples"] > 1.3 * cards[0]["data"]["examples"], "rounds are put together"
    assert (
        not list(learned.glob("**/*.bin")) and (learned / "adapter-2" / "adapter_model.safetensors").is_file()
    )


def test_the_second_round_draws_from_what_the_first_learned(learned: Path, folder: Path):
    config = load_config(folder / "audit.yaml")
    drawing = lorarounds.drawing_config(config, learned, 2, learned / "adapter-1")
    assert drawing.component_names == ("target", "opened", "learned")
    state = rebuild_folder(drawing, load_prompts(drawing), learned / "draws-2")
    assert state is not None and state.draws == 800
    assert state.laws.names == drawing.component_names


def pilot(results) -> dict[tuple[str, int], list[float]]:
    """Log-probabilities of the draws of every prompt and component in the first round."""
    first = (r for r in results if isinstance(r, BatchResult) and r.batch.round == 0 and r.n > 10)
    return {(r.batch.prompt_id, r.batch.component): r.log_q_sample.tolist() for r in first}


def test_an_audit_by_the_same_seed_draws_other_answers(learned: Path, folder: Path):
    """The adapter knows the answers that it was fitted to: met again, they would bias the audit."""
    drawing = lorarounds.drawing_config(load_config(folder / "audit.yaml"), learned, 1, None)
    own = drawing.model_copy(update={"run": RunConfig(seed=3)})
    prompts, laws, judge = load_prompts(drawing), build_laws(drawing), build_judge(drawing)
    found = []
    for config in (drawing, own):
        _, log = audit_in_memory(config, prompts, laws, executor=LocalExecutor(laws, judge, prompts))
        found.append(pilot(log.records))
    fitted_to = pilot(final_results(learned / "draws-1"))
    assert len(fitted_to) == len(PROMPTS) and found[0] == fitted_to, "the seed decides"
    assert not any(found[1][key] == draws for key, draws in fitted_to.items())


@pytest.mark.nightly
def test_rounds_on_ray_draw_the_same(learned: Path, folder: Path):
    """An audit on Ray stays in ``make test``: its workers are the same."""
    path = audit_in(folder, "rays.yaml", tracking={"uri": None})
    changes = ["--set", "training.rounds=1", "--set", "training.epochs=1"]
    assert run(["train", "lora", str(path), "--out", str(folder / "rays"), "--quiet", *changes]) == 0
    drawn, here = (pilot(final_results(place / "draws-1")) for place in (folder / "rays", learned))
    assert drawn.keys() == here.keys()
    assert all(drawn[key] == pytest.approx(here[key], abs=1e-4) for key in here)


def test_hits_are_parts_of_the_estimates(learned: Path, folder: Path):
    config = load_config(folder / "audit.yaml")
    audits = []
    for number, before in ((1, None), (2, learned / "adapter-1")):
        drawing = lorarounds.drawing_config(config, learned, number, before)
        state = rebuild_folder(drawing, load_prompts(drawing), learned / f"draws-{number}")
        assert state is not None
        hits = harvest(learned / f"draws-{number}", state)
        audits.append(hits)
        for estimate in estimate_all(state):
            if estimate.prompt_id in hits:
                found = hits[estimate.prompt_id]
                assert np.exp(found.log_estimate) == pytest.approx(estimate.estimate)
                assert len(found.tokens) == len(found.log_p) == estimate.hits
    both = joined(audits)
    for prompt, found in both.items():
        parts = [a[prompt] for a in audits if prompt in a]
        own = np.array([np.exp(h.log_estimate) for h in parts])
        weights = np.array([effective(h) for h in parts])
        assert np.exp(found.log_estimate) == pytest.approx(weights @ own / weights.sum())


def history(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in client.get_metric_history(run_id, name)]


def test_mlflow_has_the_audit_and_its_training_whole(learned: Path, folder: Path, tmp_path: Path):
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    assert {e.name for e in client.search_experiments()} == {"Default", "tailrisk"}
    experiment = client.get_experiment_by_name("tailrisk")
    assert experiment is not None
    audit, training = sorted(client.search_runs([experiment.experiment_id]), key=lambda r: r.info.start_time)
    assert [r.info.run_name for r in (audit, training)] == ["audit", "audit lora"]
    assert [r.info.status for r in (audit, training)] == ["FINISHED", "FINISHED"]
    assert audit.info.run_id == (folder / "runs/audit/mlflow_run_id").read_text().strip()
    assert training.data.tags["mlflow.parentRunId"] == audit.info.run_id
    assert "mlflow.parentRunId" not in audit.data.tags

    assert audit.data.params["budget.draws"] == "300" and audit.data.params["proposals.0.name"] == "opened"
    assert training.data.params["training.epochs"] == "5" and training.data.params["training.draws"] == "800"
    assert audit.data.params["target.model"] == training.data.params["target.model"] == "model"

    estimates = json.loads((folder / "runs/audit/estimates.json").read_text())
    drawn = history(client, audit.info.run_id, "draws")
    assert [step for step, _ in drawn] == list(range(len(drawn)))
    assert drawn[-1][1] == estimates["audit"]["draws"]
    assert audit.data.metrics["hits"] == sum(e["hits"] for e in estimates["estimates"])
    assert [step for step, _ in history(client, training.info.run_id, "hits")] == [1, 2]
    cards = [json.loads((learned / f"adapter-{n}" / "card.json").read_text()) for n in (1, 2)]
    after = [(n, card["divergence"]["after"]) for n, card in enumerate(cards, 1)]
    assert history(client, training.info.run_id, "divergence_after") == after
    for number, card in enumerate(cards, 1):
        for name in ("loss", "divergence", "seconds"):
            curve = [(e["number"], e[name]) for e in card["epochs"] if e[name] is not None]
            assert len(curve) > 1 and history(client, training.info.run_id, f"round_{number}/{name}") == curve

    manifest = json.loads((folder / "runs/audit/manifest.json").read_text())
    for run_, use in ((audit, "audit"), (training, "training")):
        assert run_.inputs is not None
        (given,) = run_.inputs.dataset_inputs
        assert given.dataset.digest == manifest["identity"]["prompts"]["digest"][:36]
        assert given.dataset.name == "prompts" and [t.value for t in given.tags] == [use]

    names = {a.path for a in client.list_artifacts(audit.info.run_id)}
    assert names == {"manifest.json", "estimates.json", "report.html"}
    assert {a.path for a in client.list_artifacts(training.info.run_id)} == {"adapter-1", "adapter-2"}
    for place in ("adapter-1", "adapter-2"):
        stored = Path(client.download_artifacts(training.info.run_id, place, str(tmp_path)))
        assert contents(stored) == contents(learned / place)
    version = client.get_model_version_by_alias("tailrisk-audit", "newest")
    assert version.run_id == training.info.run_id and int(version.version) == 1
    assert version.source == f"{training.info.artifact_uri}/adapter-2"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.nightly
def test_an_audit_names_it_in_the_registry(learned: Path, folder: Path):
    """From the registry to Ray's workers: the same law as by the adapter's folder."""
    proposal = {"name": "learned", "kind": "lora", "adapter": "models:/tailrisk-audit@newest", "added": True}
    budget = {"draws": 300, "pilot": 20, "batch": 64, "rounds": 1}
    path = audit_in(folder, "named.yaml", proposals=[proposal], budget=budget, run={"name": "named"})
    assert run(["audit", str(path), "--quiet"]) in (0, 3)
    by_folder = audit_in(folder, "placed.yaml", proposals=[{**proposal, "adapter": "out/adapter-2"}])
    hashes = [check(p, ()).hashes["adapter.learned"] for p in (path, by_folder)]
    assert (
        hashes[0]
        == hashes[1]
        == json.loads((folder / "runs/named/manifest.json").read_text())["hashes"]["adapter.learned"]
    )


def test_an_audit_fits_first_and_counts_what_that_draws(folder: Path, monkeypatch, capfd):
    """Of 4,800 draws half go to the fit, once, on top of a prefix; the estimates rest on others."""
    monkeypatch.setattr(wiring, "on_ray", in_process)
    fitted = {"name": "fitted", "kind": "learned", "share": 0.5, "base": "shut"}
    proposals = [{"name": "shut", "kind": "prefix", "avoid": ["w0", "w2 w2"]}, fitted]
    changes = {
        "proposals": proposals,
        "budget": {**AUDIT["budget"], "draws": 4800},
        "run": {"name": "fits", "seed": 3},
    }
    path = audit_in(folder, "fits.yaml", **changes)
    assert run(["plan", str(path), "--json"]) == 0
    planned = json.loads(capfd.readouterr().out)
    assert planned["search_draws"] == 2400 and planned["draws_per_prompt"] == pytest.approx(200)
    assert run(["audit", str(path)]) in (0, 3)
    assert "2,400 of 4,800 draws went into fits; 2,400 are left for estimates" in capfd.readouterr().err
    manifest = json.loads((folder / "runs/fits/manifest.json").read_text())
    made = manifest["identity"]["proposals"][1]
    assert (made["name"], made["kind"], made["avoid"]) == ("fitted", "prefix", ["w0", "w2 w2"])
    (change,) = made["also"]
    assert change["added"] and change["adapter"] == "runs/fits.fitted/adapter-1"
    assert (folder / change["adapter"] / "card.json").is_file()
    told = json.loads((folder / "runs/fits/estimates.json").read_text())
    assert told["audit"]["draws"] <= 2400 and "fitted" in told["estimates"][0]["components"]
    drawn, fitted_to = (
        pilot(final_results(folder / place)) for place in ("runs/fits", "runs/fits.fitted/draws-1")
    )
    assert not any(drawn.get(key) == draws for key, draws in fitted_to.items())

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    own, child = (
        (folder / "runs" / n / "mlflow_run_id").read_text().strip() for n in ("fits", "fits.fitted")
    )
    assert client.get_run(child).data.tags["mlflow.parentRunId"] == own

    def again(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("tailrisk.training.lorajob.run_fit", again)
    assert run(["audit", str(path), "--quiet"]) in (0, 3)


def test_decoding_options_on_top_of_a_prefix_are_refused_before_anything_is_drawn(folder: Path, capfd):
    proposals = [*AUDIT["proposals"], {"name": "fitted", "kind": "learned", "base": "opened", "switch": 2}]
    budget = {**AUDIT["budget"], "draws": 1600}
    path = audit_in(folder, "mixed.yaml", proposals=proposals, budget=budget, run={"name": "mixed"})
    assert run(["audit", str(path)]) == 2
    assert "on top of the prefix 'opened' neither 'mix' nor 'switch' applies" in " ".join(
        capfd.readouterr().err.split()
    )
    assert not list((folder / "runs").glob("mixed*"))


def test_what_is_not_fitted_yet_has_no_law(folder: Path):
    path = audit_in(folder, "early.yaml", proposals=[{"name": "fitted", "kind": "learned"}])
    with pytest.raises(ConfigError, match="'fitted' is not fitted yet; tailrisk audit does that"):
        build_laws(load_config(path))


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ("models:/nobody@newest", "does not give it"),
        ("models:/tailrisk-audit", "write models:/NAME@ALIAS"),
        ("runs:/0123abcd/adapter", "does not give it"),
    ],
)
def test_what_mlflow_does_not_have_is_said(learned: Path, folder: Path, adapter: str, message: str):
    path = audit_in(folder, "lost.yaml", proposals=[{"name": "l", "kind": "lora", "adapter": adapter}])
    with pytest.raises(ConfigError, match=message):
        check(path, ())


def test_again_is_done_at_once(learned: Path, folder: Path, capfd, monkeypatch):
    def fitted(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("tailrisk.training.lorajob.run_fit", fitted)
    before = (learned / "adapter-2" / "card.json").read_bytes()
    assert run(["train", "lora", str(folder / "audit.yaml"), "--out", str(learned), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert [r["round"] for r in told["rounds"]] == [1, 2] and all(r["hits"] > 50 for r in told["rounds"])
    assert told["proposal"] == {"name": "learned", "kind": "lora", "adapter": "out/adapter-2", "added": True}
    assert (learned / "adapter-2" / "card.json").read_bytes() == before


def test_an_audit_with_it_is_unbiased(learned: Path, folder: Path):
    """50 whole audits whose only proposal is what was learned, against the truth by enumeration."""
    proposal = {"name": "learned", "kind": "lora", "adapter": "out/adapter-2", "added": True}
    budget = {"draws": 480, "pilot": 144, "batch": 256, "rounds": 2, "target_share": 0.3}
    path = audit_in(folder, "with.yaml", proposals=[proposal], budget=budget, stop={"log_width": 0.75})
    config, prompts = load_config(path), [PROMPTS[9], PROMPTS[0]]
    context = load_target(config)
    truth = np.array(
        [
            sum(p for y, p in law_of(context, context.view, asked).items() if harmful_ids(y, words(VOCAB)))
            for asked in prompts
        ]
    )
    assert (truth < 3e-2).all()
    ratios = audited(config, prompts, 50) / truth
    error = ratios.std(axis=0, ddof=1) / np.sqrt(len(ratios))
    assert np.abs((ratios.mean(axis=0) - 1) / error).max() < 3.0, (truth, ratios.mean(axis=0), error)
    # Better than plain sampling with as many draws, on a prompt that was kept aside too.
    assert (error * np.sqrt(len(ratios)) < 0.5 * np.sqrt((1 - truth) / (240 * truth))).all(), (truth, error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"base": "nobody"}}, "there is no proposal 'nobody'; known: target, opened"),
        (
            {
                "training": {"base": "other"},
                "proposals": [{"name": "other", "kind": "checkpoint", "model": "model"}],
            },
            "'other' is a checkpoint, and an adapter is added to",
        ),
        ({"training": {"workers": 2}}, "need the backend"),
        (
            {"training": {"backend": "deepspeed", "workers": 2, "deepspeed": "judge.py"}},
            "cannot be read as JSON",
        ),
        ({"proposals": [{"name": "a", "kind": "learned", "share": 0.95}]}, "leave a tenth for estimates"),
        (
            {"proposals": [{"name": "a", "kind": "learned"}], "method": {"kind": "search"}},
            "fitted by the mixture's draws",
        ),
        ({"training": {"draws": 100}}, "the pilot needs 20 draws x 12 prompts"),
        ({"prompts": {"path": "prompts.jsonl", "limit": 1}}, "give prompts of two groups"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    folder: Path, tmp_path: Path, changes, message, capfd, monkeypatch
):
    path = audit_in(folder, "wrong.yaml", **changes)
    check_refused(
        lambda: run(["train", "lora", str(path), "--out", str(tmp_path / "out")]),
        "build_laws",
        message,
        tmp_path,
        capfd,
        monkeypatch,
    )


def test_help(capfd):
    check_help("lora", ("--out", "--set", "--json"), capfd)
