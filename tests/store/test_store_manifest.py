from __future__ import annotations

import json
from dataclasses import replace

import pytest
import storekit as kit

from tailrisk.errors import StoreError
from tailrisk.records import Prompt
from tailrisk.store import RunStore, make_manifest, read_manifest


def test_it_is_written_once_and_read_back(tmp_path):
    first = kit.manifest()
    RunStore.open(tmp_path, first).close()
    assert read_manifest(tmp_path) == first
    written = (tmp_path / "manifest.json").read_bytes()
    RunStore.open(tmp_path, replace(kit.manifest(), created="later")).close()
    assert (tmp_path / "manifest.json").read_bytes() == written
    assert read_manifest(tmp_path).component_names == kit.NAMES


def test_it_names_prompts_without_their_text(tmp_path):
    RunStore.open(tmp_path, kit.manifest()).close()
    assert "text 0" not in (tmp_path / "manifest.json").read_text()
    assert [p["id"] for p in read_manifest(tmp_path).prompts] == ["p0", "p1"]


def test_a_password_in_the_tracking_address_is_not_kept(tmp_path):
    manifest = kit.manifest(tracking={"uri": "https://me:canary@mlflow.example:5000/x"})
    RunStore.open(tmp_path, manifest).close()
    text = (tmp_path / "manifest.json").read_text()
    assert "canary" not in text and "me:***@mlflow.example:5000/x" in text


CHANGES = {
    "target.model": {"target": {"model": "other"}},
    "target.dtype": {"target": {"model": "smollm2", "dtype": "float32"}},
    "target.sampling.max_new_tokens": {"target": {"model": "smollm2", "sampling": {"max_new_tokens": 9}}},
    "proposals.0.scale": {
        "proposals": [{"name": "loose", "kind": "lora", "adapter": "target", "scale": 0.5}]
    },
    "proposals.0": {"proposals": []},
    "judge.pattern": {"judge": {"kind": "regex", "pattern": "worse"}},
    "run.seed": {"run": {"seed": 1}},
    "budget.draws": {"budget": {"draws": 99}},
    "budget.batch": {"budget": {"batch": 16}},
    "stop.log_width": {"stop": {"log_width": 0.1}},
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_setting_refuses_the_resume_by_name(tmp_path, field):
    RunStore.open(tmp_path, kit.manifest()).close()
    with pytest.raises(StoreError) as caught:
        RunStore.open(tmp_path, kit.manifest(**CHANGES[field]))
    message = str(caught.value)
    assert f"  {field}: " in message and "run.name" in message and str(tmp_path) in message
    assert sum(line.startswith("  ") for line in message.splitlines()) == 1, "only what differs is listed"
    RunStore.open(tmp_path, kit.manifest()).close()


def test_all_differences_are_listed_with_both_values(tmp_path):
    RunStore.open(tmp_path, make_manifest(kit.config(), kit.prompts(), {"target.weights": "aa"})).close()
    other = make_manifest(
        kit.config(run={"seed": 5}, budget={"draws": 7}), kit.prompts(3), {"target.weights": "bb", "x": "c"}
    )
    with pytest.raises(StoreError) as caught:
        RunStore.open(tmp_path, other)
    for line in (
        "  run.seed: 0 -> 5",
        "  budget.draws: 10000 -> 7",
        "  prompts.count: 2 -> 3",
        '  hashes.target.weights: "aa" -> "bb"',
        '  hashes.x: (not there) -> "c"',
        "  prompts.digest: ",
    ):
        assert line in str(caught.value)


def test_a_changed_prompt_refuses_and_a_changed_label_does_not(tmp_path):
    RunStore.open(tmp_path, kit.manifest()).close()
    labelled = [replace(p, category="new") for p in kit.prompts()]
    RunStore.open(tmp_path, make_manifest(kit.config(), labelled)).close()
    with pytest.raises(StoreError, match=r"prompts\.digest"):
        grouped = [replace(p, group="g") for p in kit.prompts()]
        RunStore.open(tmp_path, make_manifest(kit.config(), grouped))
    changed: list[Prompt] = [
        kit.prompts()[0],
        replace(kit.prompts()[1], messages=({"role": "user", "content": "new"},)),
    ]
    with pytest.raises(StoreError, match=r"prompts\.digest"):
        RunStore.open(tmp_path, make_manifest(kit.config(), changed))
    with pytest.raises(StoreError, match=r"prompts\.digest"):
        RunStore.open(tmp_path, make_manifest(kit.config(), kit.prompts()[::-1]))


def test_cluster_tracking_and_place_may_change(tmp_path):
    RunStore.open(tmp_path, kit.manifest()).close()
    moved = kit.manifest(
        cluster={"address": "auto", "models": {"min": 2, "max": 4, "memory": "1GiB", "labels": {"a": "b"}}},
        tracking={"uri": None},
        run={"name": "other", "dir": "elsewhere"},
        prompts={"path": "renamed.csv"},
    )
    with RunStore.open(tmp_path, moved) as store:
        assert store.notes == []


def test_how_verdicts_are_got_may_change_and_what_they_depend_on_may_not(tmp_path):
    judge = {"kind": "endpoint", "url": "http://one/v1", "model": "m", "key_env": "KEY"}
    RunStore.open(tmp_path, kit.manifest(judge=judge)).close()
    changed = judge | {
        "url": "http://two/v1",
        "key_env": None,
        "retries": 9,
        "cache": False,
        "budget": {"calls": 3},
    }
    with RunStore.open(tmp_path, kit.manifest(judge=changed)) as store:
        assert store.notes == [
            "judge.url was http://one/v1 when the run began and is http://two/v1 now: is it the same model?"
        ]
    for key, value in {"model": "n", "threshold": 0.5, "seed": 1, "body": {"top_k": 1}}.items():
        with pytest.raises(StoreError, match=rf"judge\.{key}"):
            RunStore.open(tmp_path, kit.manifest(judge=judge | {key: value}))


def test_package_versions_numeric_ones_refuse_others_are_noted(tmp_path):
    first = kit.manifest()
    RunStore.open(tmp_path, first).close()
    assert {"torch", "transformers", "numpy", "tailrisk", "python"} <= first.versions.keys()
    noted = replace(first, versions={**first.versions, "numpy": "1.0"})
    with RunStore.open(tmp_path, noted) as store:
        assert store.notes == [f"numpy was {first.versions['numpy']} when the run began and is 1.0 now"]
    with pytest.raises(StoreError, match=r"version of torch: .* -> \"0\.1\""):
        RunStore.open(tmp_path, replace(first, versions={**first.versions, "torch": "0.1"}))


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(StoreError, match="not a run folder"):
        read_manifest(tmp_path)
    RunStore.open(tmp_path, kit.manifest()).close()
    path = tmp_path / "manifest.json"
    good = json.loads(path.read_text())
    for bad in ("{", "[]", json.dumps({**good, "format": 99}), json.dumps({"format": 1, "identity": {}})):
        path.write_text(bad)
        with pytest.raises(StoreError, match=r"manifest\.json"):
            RunStore.open(tmp_path, kit.manifest())
    path.unlink()
    with pytest.raises(StoreError, match=r"a log but no manifest\.json"):
        RunStore.open(tmp_path, kit.manifest())


def test_a_run_that_is_older_than_a_setting_goes_on(tmp_path):
    """What the manifest does not know yet was as the default is; another value is a change all the same."""
    proposals = [{"name": "a", "kind": "lora", "adapter": "x"}, {"name": "b", "kind": "lora", "adapter": "y"}]
    RunStore.open(tmp_path, kit.manifest(proposals=proposals)).close()
    path = tmp_path / "manifest.json"
    stored = json.loads(path.read_text())
    for part in (stored["identity"], stored["config"]):
        del part["method"], part["proposals"][0]["added"]
    path.write_text(json.dumps(stored))
    RunStore.open(tmp_path, kit.manifest(proposals=proposals)).close()
    proposals[0]["added"] = True
    with pytest.raises(StoreError, match=r"proposals\.0\.added: false -> true"):
        RunStore.open(tmp_path, kit.manifest(proposals=proposals))
