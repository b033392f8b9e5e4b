"""The files under clusters/: options that DeepSpeed and the training's own settings agree to, clusters that Ray's
launcher and KubeRay understand, and the scripts beside them."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import signal
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from clusterfiles import images, ray_up_faults, rayjob_faults, unsafe

from tailrisk.config import Config
from tailrisk.configfile import load_config
from tailrisk.training.backends.zero import deepspeed_options
from tailrisk.trainingconfig import LoraTraining

ROOT = Path(__file__).parent.parent
CLUSTERS = ROOT / "clusters"
FILES = sorted((CLUSTERS / "deepspeed").glob("*.json"))
RAY_UP = ["aws.yaml", "gcp.yaml"]
MINIMAL = "{target: {model: smollm2}, prompts: {path: p.txt}, judge: {kind: refusal}}"
README = (CLUSTERS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_deepspeed_knows_the_options(path: Path):
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    options = deepspeed_options(LoraTraining(backend="deepspeed", workers=2, deepspeed=str(path)))
    zero = options["zero_optimization"]
    found = DeepSpeedZeroConfig(**zero)
    assert int(found.stage) == zero["stage"]
    names = {n for n, f in DeepSpeedZeroConfig.model_fields.items()}
    names |= {f.alias for f in DeepSpeedZeroConfig.model_fields.values() if f.alias}
    assert set(zero) <= names, "a misspelt option would be passed over in silence"


def test_there_are_files():
    assert len(FILES) == 3
    assert sorted(p.name for p in CLUSTERS.glob("*.yaml")) == [*RAY_UP, "kuberay-rayjob.yaml"]


def ray_up(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTERS / name).read_text(encoding="utf-8"))


def rayjob() -> list[dict[str, Any]]:
    text = (CLUSTERS / "kuberay-rayjob.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


def changed(tree: Any, place: str, value: Any = None) -> Any:
    """A copy with ``place`` set to ``value`` or, without one, with the last letter of its name lost."""
    tree = json.loads(json.dumps(tree))  # what is used twice in a file (an anchor) is two things here
    *path, last = [int(key) if key.isdigit() else key for key in place.split("|")]
    part: Any = tree
    for key in path:
        part = part[key]
    if value is None:
        part[last[:-1]] = part.pop(last)
    else:
        part[last] = value
    return tree


@pytest.mark.parametrize("name", RAY_UP)
def test_the_launcher_takes_the_files(name: str):
    assert ray_up_faults(ray_up(name)) == []


WORKER = "available_node_types|gpu-spot"


@pytest.mark.parametrize("name", RAY_UP)
@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("max_workers", None),
        ("max_workers", "four"),
        ("idle_timeout_minutes", -1),
        ("idle_timeout_minute", 10),
        ("docker|worker_image", None),
        ("docker|container_name", ""),
        ("docker|worker_image", "rayproject/ray"),
        ("docker|run_options", []),
        ("head_node_type", "haed"),
        ("head_node_type", None),
        ("provider|type", None),
        ("provider|regoin", "here"),
        ("head_start_ray_commands", ["ray start --head"]),
        ("setup_commands", "pip install it"),
        (f"{WORKER}|min_workers", 5),
        (f"{WORKER}|min_workers", 1),
        (f"{WORKER}|max_workers", 100),
        (f"{WORKER}|max_worker", 4),
        (f"{WORKER}|resources", {"CPU": "lots", "GPU": 1}),
        (f"{WORKER}|resources", {"CPU": 8, "GPUs": 1}),
        (f"{WORKER}|resources", {"CPU": 8}),
        (f"{WORKER}|resources", None),
        (f"{WORKER}|labels", {"ray.io/market-type": "on-demand"}),
        (f"{WORKER}|labels", {"ray.io/market-typ": "spot"}),
        (f"{WORKER}|node_config", {"InstanceMarketOption": {"MarketType": "spot"}, "schedulin": {}}),
        (f"{WORKER}|node_config", None),
        ("available_node_types|head|resources", {"CPU": 4}),
        ("available_node_types|head|resources", {"CPU": 0, "GPU": 1}),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_file_for_the_launcher_is_found(name: str, place: str, value: Any):
    assert ray_up_faults(changed(ray_up(name), place, value)) != []


def test_kuberay_takes_the_job():
    assert rayjob_faults(rayjob()) == []


SPEC, CLUSTER = "2|spec", "2|spec|rayClusterSpec"
POD = f"{CLUSTER}|workerGroupSpecs|0|template|spec"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("2|apiVersion", "ray.io/v1alpha1"),
        (f"{SPEC}|entrypoint", None),
        (f"{SPEC}|entrypoint", "tailrisk audit x.yaml || true"),
        (f"{SPEC}|shutdownAfterJobFinishes", None),
        (f"{SPEC}|shutdownAfterJobFinishes", "yes"),
        (f"{SPEC}|shutdownAfterJobFinishes", False),
        (f"{SPEC}|submissionMode", "K8SJobMode"),
        (f"{SPEC}|ttlSecondAfterFinished", 5),
        (f"{CLUSTER}|enableInTreeAutoscaling", None),
        (f"{CLUSTER}|authOptions|mode", "disabled"),
        (f"{CLUSTER}|autoscalerOptions|idleTimeoutSeconds", "600"),
        (f"{CLUSTER}|headGroupSpec|template", None),
        (f"{CLUSTER}|headGroupSpec|rayStartParams", {"num-cpus": 0}),
        (f"{CLUSTER}|headGroupSpec|rayStartParams", {}),
        (f"{CLUSTER}|workerGroupSpecs|0|maxReplicas", 0),
        (f"{CLUSTER}|workerGroupSpecs|0|minReplicas", 1),
        (f"{CLUSTER}|workerGroupSpecs|0|minReplicas", None),
        (f"{CLUSTER}|workerGroupSpecs|0|labels", {}),
        (f"{POD}|nodeSelector", None),
        (f"{POD}|tolerations|0|effect", "NoSchedul"),
        (f"{POD}|volumes|0|name", "audits"),
        (f"{POD}|volumes|1|persistentVolumeClaim|claimName", "shared"),
        (f"{POD}|containers|0|image", "rayproject/ray:2.60"),
        (f"{POD}|containers|0|resources|limits", {"cpu": "8", "nvidia.com/gpus": "1"}),
        (f"{POD}|containers|0|resources|limits", {"cpu": "8", "memory": "32Gi"}),
        (f"{POD}|containers|0|resources|limits", {"cpu": 8, "nvidia.com/gpu": "1"}),
    ],
    ids=str,
)
def test_what_is_wrong_in_the_job_is_found(place: str, value: Any):
    assert rayjob_faults(changed(rayjob(), place, value)) != []


WRITTEN = [p for p in CLUSTERS.rglob("*") if p.suffix in (".yaml", ".py", ".json", ".md")]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda p: p.name)
def test_nothing_is_open_to_everybody_or_secret_or_of_a_moving_version(path: Path):
    assert unsafe(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "ray start --head --dashboard-host=0.0.0.0",
        "image: rayproject/ray:latest-gpu",
        "image: rayproject/ray:nightly",
        "- ray stop --force",
        "- ray stop -f",
        "serviceType: LoadBalancer",
        "RAY_AUTH_TOKEN=4f1c9a0b7de24a1195a3c77e0f6d5b21",
        "aws_access_key_id: AKIAABCDEFGHIJKLMNOP",
        'api_key: "Zm9vYmFyYmF6cXV4MTIzNDU2"',
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_what_would_be_unsafe_is_found(text: str):
    assert unsafe(text) != []


def test_versions_are_those_that_were_tested_together():
    constraints = (ROOT / "constraints.txt").read_text()
    known = dict(re.findall(r"^([\w.-]+)==(.+)$", constraints, re.MULTILINE))
    known["lm-tailrisk"] = re.findall(
        r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )[0]
    for name in [*RAY_UP, "kuberay-rayjob.yaml"]:
        text = (CLUSTERS / name).read_text(encoding="utf-8")
        pins = re.findall(r"([a-z][\w-]+)(?:\[\w+\])?==([\w.]+)", text)
        assert {"torch", "transformers", "lm-tailrisk"} <= {pin for pin, _ in pins}
        assert dict(pins) == {pin: known[pin] for pin, _ in pins}
        found = {
            image.partition(":")[2].split("-")[0] for d in yaml.safe_load_all(text) for image in images(d)
        }
        assert found == {known["ray"]}
    assert rayjob()[2]["spec"]["rayClusterSpec"]["rayVersion"] == known["ray"]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("-", "_"), CLUSTERS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_stopping_nodes_spares_a_process_that_has_the_number_of_one_by_now(tmp_path, monkeypatch):
    module = script("local-multinode")
    child = subprocess.Popen(["sleep", "60"])
    born = module._born(child.pid)
    for lie, ended in ((born - 1, None), (born, -signal.SIGTERM)):
        (tmp_path / "nodes").mkdir()
        (tmp_path / "nodes" / "nodes.json").write_text(json.dumps([[child.pid, lie]]))
        monkeypatch.setattr(module, "folder_of", lambda port: tmp_path / "nodes")
        assert module.stop(1) == 0
        assert child.poll() == ended
        assert not (tmp_path / "nodes").exists()


def overrides(words: list[str]) -> list[str]:
    """The settings of an audit's command line, which has nothing else but its file."""
    program, verb, path, *rest = words
    assert (program, verb) == ("tailrisk", "audit") and path.endswith("/tailrisk.yaml"), words
    rest = [word for word in rest if word != "--short-ok"]
    assert set(rest[::2]) <= {"--set"}, words
    return rest[1::2]


def test_the_job_runs_an_audit_that_its_configuration_allows():
    words = shlex.split(rayjob()[2]["spec"]["entrypoint"])
    assert words[2] == "/audit/tailrisk.yaml"
    assert "--short-ok" in words, "a job that ends with 3 would be begun again, on another cluster"
    config = load_config(ROOT / "tailrisk" / "cli" / "templates" / "tailrisk.yaml", overrides(words))
    group = rayjob()[2]["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (
        config.cluster.address == "auto" and config.run.dir == "/shared/runs" and config.tracking.uri is None
    )
    models = config.cluster.models
    assert models.num_gpus == 1 and models.max == group["maxReplicas"]
    pod = group["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert models.num_cpus <= int(pod["cpu"]), "else no pod has room for a worker"


def commands() -> list[list[str]]:
    """Command lines of all sh blocks of the README."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_the_readme_names_files_that_exist_and_every_one_of_them():
    named = set(re.findall(r"clusters/([\w.-]+\.(?:yaml|py))", README))
    assert named == {p.name for p in CLUSTERS.glob("*.*")} - {"README.md"}


def test_the_readme_calls_ray_as_ray_is_called():
    """An option that is misspelt there would be found on a cluster that costs money."""
    import click
    from ray.scripts.scripts import cli

    seen = set()
    for words in [words for words in commands() if words[0] == "ray"]:
        command: Any = cli
        rest = words[1:]
        while isinstance(command, click.Group):
            assert rest[0] in command.commands, words
            command = command.commands[rest.pop(0)]
        seen.add(command.name)
        mine = rest[: rest.index("--")] if "--" in rest else rest
        known = {
            option for parameter in command.params for option in parameter.opts + parameter.secondary_opts
        }
        assert {word.partition("=")[0] for word in mine if word.startswith("-")} <= known, words
    assert {"up", "down", "dashboard", "submit", "rsync_down"} <= {n.replace("-", "_") for n in seen}


def test_the_readme_runs_audits_that_their_configuration_allows():
    calls = [words[words.index("tailrisk") :] for words in commands() if "audit" in words]
    assert len(calls) >= 2
    for words in calls:
        load_config(ROOT / "tailrisk" / "cli" / "templates" / "tailrisk.yaml", overrides(words))


def test_the_readme_shows_pools_that_can_be_had(tmp_path):
    blocks = re.findall(r"^```yaml\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert any("fallback" in block for block in blocks)
    for block in blocks:
        Config.model_validate(yaml.safe_load(MINIMAL) | yaml.safe_load(block))
