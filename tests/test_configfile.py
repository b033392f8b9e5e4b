from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tailrisk.config import AblationProposal, PrefixProposal, RegexJudge
from tailrisk.configfile import check_budget, config_digest, dump_resolved, load_config
from tailrisk.errors import ConfigError

MINIMAL = "target: {model: smollm2}\nprompts: {path: p.jsonl}\njudge: {kind: refusal}\n"
FULL = """\
run: {name: quickstart, dir: runs, seed: 7}
target:
  model: smollm2
  adapter: safety-adapter
  dtype: bfloat16
  system_prompt: null
  sampling: {temperature: 1.0, top_p: 1.0, top_k: 0, max_new_tokens: 32}
prompts: {path: prompts.jsonl, limit: null}
proposals:
  - {name: rude, kind: system_prompt, text: "Be: rude"}
  - {name: unlearned, kind: lora, adapter: target, scale: 0.0}
  - {name: no-refusal, kind: ablation, direction: refusal.safetensors, intensity: 1.0, mix: 0.5, switch: 20}
  - {name: sure, kind: prefix, text: "Sure"}
  - {name: sibling, kind: checkpoint, model: ../other}
judge: {kind: python, function: "judge.py:harmful", threshold: 0.5}
budget: {draws: 10_000, tokens: null, pilot: 64, batch: 32, target_share: 0.2, objective: relative}
stop: {log_width: 0.7, confidence: 0.95}
tracking: {uri: "sqlite:///mlflow.db", experiment: tailrisk}
cluster: {address: local, models: {min: 1, max: 1, num_cpus: 2}, judges: {min: 1, max: 1}}
"""


@pytest.fixture
def load(tmp_path):
    def from_text(text: str | bytes, *overrides: str):
        path = tmp_path / "audit.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(path, overrides)

    return from_text


def refusal(load, text, *overrides) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return [re.sub(r"^/\S*/", "", line) for line in str(caught.value).splitlines()]


def test_a_full_file_with_paths_relative_to_it(load, tmp_path):
    config = load(FULL)
    assert config.component_names == ("target", "rude", "unlearned", "no-refusal", "sure", "sibling")
    assert config.base == tmp_path.resolve()
    assert config.resolve("../other") == tmp_path.resolve().parent / "other"
    assert config.run_folder == tmp_path.resolve() / "runs" / "quickstart"
    ablation = config.proposals[2]
    assert isinstance(ablation, AblationProposal) and (ablation.mix, ablation.switch) == (0.5, 20)
    assert config.budget.draws == 10_000


def test_yaml_words_mean_what_they_look_like(load):
    config = load(
        MINIMAL + "stop: {log_width: 1e-6}\n"
        "proposals:\n"
        "- {name: no, kind: prefix, text: yes}\n"
        "- {name: on, kind: prefix, avoid: [no, off, 2020-01-01, 1:30, 'true', ~x]}\n"
        "budget: {draws: 1e4, tokens: 2_000_000}\n"
    )
    assert config.stop.log_width == 1e-6
    assert (config.budget.draws, config.budget.tokens) == (10_000, 2_000_000)
    first, second = config.proposals
    assert isinstance(first, PrefixProposal) and isinstance(second, PrefixProposal)
    assert (first.name, first.text) == ("no", "yes")
    assert second.avoid == ("no", "off", "2020-01-01", "1:30", "true", "~x")


def test_a_byte_order_mark_and_crlf_are_tolerated(load):
    assert load(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode()).target.model == "smollm2"


ONE_FAULT = {
    "unknown key": ("budget: {drws: 3}", 4, "budget.drws: unknown key (nearest known key 'draws')"),
    "unknown far": ("zzz: 3", 4, "zzz: unknown key; known here: run, target,"),
    "other place": ("draws: 3", 4, "draws: unknown key here; it belongs under budget.draws"),
    "double key": ("run: {seed: 1}\nrun: {seed: 2}", 5, "doubled key 'run' (first at line 4)"),
    "double inner": ("run:\n  seed: 1\n  seed: 1", 6, "doubled key 'seed' (first at line 5)"),
    "nan": ("stop: {log_width: .nan}", 4, ".nan is not a finite number"),
    "inf": ("stop:\n  log_width: -.Inf", 5, "-.Inf is not a finite number"),
    "huge": ("stop: {log_width: 1e999}", 4, "too large"),
    "negative": ("budget: {draws: -5}", 4, "budget.draws: input should be greater than or equal to 1"),
    "boolean": ("budget: {draws: true}", 4, "budget.draws: a number is wanted, true given"),
    "fraction": ("budget: {draws: 1.5}", 4, "budget.draws: "),
    "text": ("budget: {draws: many}", 4, 'budget.draws: input should be a valid integer'),
    "literal": ("cluster: {}\nstop: 3", 5, "stop: 3 is a number; a section"),
    "empty": ("stop:", 4, "stop: no value is given"),
    "tag": ("run: !!python/object/apply:os.system ['echo hi']", 4, "tag"),
    "str tag": ("run: {name: !!str 3}", 4, "tag"),
    "anchor": ("run: &a {seed: 1}", 4, "anchors and aliases"),
    "alias": ("run: *a", 4, "anchors and aliases"),
    "merge": ("run: {<<: {seed: 3}}", 4, "run.<<: unknown key"),
    "second document": ("---\nrun: {}", 4, "second document"),
    "tab": ("run:\n\tseed: 1", 5, "not valid YAML"),
    "list key": ("? [a, b]\n: 3", 4, "a key must be a plain word"),
    "kind": ("proposals:\n- {name: a, kind: lorra}", 5, "proposals.0: unknown kind 'lorra' (nearest: 'lora'"),
    "no kind": ("proposals:\n- {name: a}", 5, "proposals.0: the key 'kind' is required and missing"),
    "missing": ("proposals:\n- name: a\n  kind: lora", 5, "proposals.0.adapter: this key is required"),
    "nearest in kind": (
        "proposals:\n- {name: a, kind: prefix, text: x}\n"
        "- {name: b, kind: ablation,\n direction: d,\n intensty: 1}",
        8,
        "proposals.1.intensty: unknown key (nearest known key 'intensity')",
    ),
    "key of another kind": (
        "proposals:\n- {name: a, kind: lora, adapter: x, intensity: 1}",
        5,
        "proposals.0.intensity: unknown key here; it belongs under proposals (kind ablation).intensity",
    ),
    "no change": (
        "proposals:\n- name: a\n  kind: system_prompt\n  text: x\n  also:\n  - {kind: checkpoint, model: m}",
        9,
        "proposals.0.also.0: unknown kind 'checkpoint'; one of system_prompt, lora, ablation, vector",
    ),
    "two prompts": (
        "proposals:\n- name: a\n  kind: system_prompt\n  text: x\n  also: [{kind: system_prompt, text: y}]",
        5,
        "proposals.0: 'also' has a second system prompt, and a law reads one",
    ),
    "options of the law": (
        "proposals:\n- name: a\n  kind: system_prompt\n  text: x\n  also:\n  - {kind: vector, vector: v, mix: 0.5}",
        9,
        "proposals.0.also.0.mix: unknown key here; it belongs under proposals (kind system_prompt).mix",
    ),
    "also with a checkpoint": (
        "proposals:\n- {name: a, kind: checkpoint, model: x, also: []}",
        5,
        "proposals.0.also: unknown key here; it belongs under proposals (kind system_prompt).also",
    ),
    "tokens": (
        "proposals:\n- {name: a, kind: vector, vector: v, tokens: answer}",
        5,
        'proposals.0.tokens: "answer" is not one of all, prompt, response',
    ),
    "both": ("proposals:\n- {name: a, kind: prefix, text: x, avoid: [y]}", 5, "proposals.0: give exactly"),
    "number as text": ("run: {name: 7}", 4, "run.name: 7 is read as a number; put it in quotes"),
    "name": ("run: {name: ../x}", 4, "run.name: "),
    "shards": ("cluster: {models: {tensor_parallel: 2, num_gpus: 0.5}}", 4, "each of the 2 processes of a sharded"),
    "no place": ("cluster: {models: {pipeline_parallel: 2, num_cpus: 0}}", 4, "num_cpus and num_gpus are both 0"),
    "pool": ("cluster: {models: {min: 3, max: 2}}", 4, "cluster.models: max (2) is below min (3)"),
    "no models": ("cluster: {models: {min: 0}}", 4, "cluster: models.min is 0, and an audit draws"),
    "memory": ("cluster: {models: {memory: 40 gigs}}", 4, "cluster.models.memory: '40 gigs' is no amount"),
    "label": ("cluster: {models: {labels: {a: 'in(x'}}}", 4, "cluster.models.labels: a: 'in(x' says no value"),
    "label's name": ("cluster: {judges: {labels: {a b: x}}}", 4, "cluster.judges.labels: 'a b' is no label's name"),
    "only a fallback": ("cluster: {models: {fallback: [{a: b}]}}", 4, "cluster.models: fallback is for workers"),
    "no GPU": ("cluster: {models: {accelerator: H100}}", 4, "cluster.models: accelerator (H100) is the type of a GPU"),
    "GPU and a half": ("cluster: {models: {num_gpus: 1.5}}", 4, "cluster.models: num_gpus (1.5): a worker has a share"),
}  # fmt: skip


@pytest.mark.parametrize("fault", ONE_FAULT)
def test_each_fault_is_one_line_with_its_place(load, fault):
    text, line, said = ONE_FAULT[fault]
    lines = refusal(load, MINIMAL + text)
    assert len(lines) == 1
    assert lines[0].startswith(f"audit.yaml:{line}: "), lines
    assert said in lines[0]


def test_literals_list_what_is_allowed(load):
    text = MINIMAL.replace("{model: smollm2}", "{model: smollm2, dtype: bf16}")
    assert refusal(load, text) == [
        "audit.yaml:1: target.dtype: \"bf16\" is not one of float32, bfloat16, float16, float64 "
        "(nearest: 'bfloat16')"
    ]  # fmt: skip


def test_all_faults_are_told_in_one_pass(load):
    lines = refusal(load, "judge: {kind: regex, patern: x}\nbudget: {pilot: 0, drws: 2}\n")
    assert {line.split(" ", 1)[1].split(":")[0] for line in lines} == {
        "target", "prompts", "judge.pattern", "judge.patern", "budget.pilot", "budget.drws",
    }  # fmt: skip


def test_doubled_names_are_refused(load):
    lines = refusal(load, MINIMAL + "proposals:\n- {name: target, kind: prefix, text: x}")
    assert lines == ["audit.yaml: proposals: doubled name 'target' ('target' is the target's own)"]


@pytest.mark.parametrize("text", ["", "# only a remark\n", "- a\n", "just words", "7"])
def test_what_is_no_configuration_at_all(load, text):
    assert "the configuration is" in refusal(load, text)[0]


def test_overrides_are_yaml_reach_list_items_and_the_last_one_counts(load):
    config = load(
        FULL,
        "budget.draws=5",
        "budget.draws=1e5",
        "proposals.2.mix=0.25",
        "judge={kind: regex, pattern: 'a=b'}",
        "target.system_prompt=no",
        "stop.log_width=1e-6",
    )
    assert config.budget.draws == 100_000
    assert config.proposals[2].mix == 0.25
    assert isinstance(config.judge, RegexJudge) and config.judge.pattern == "a=b"
    assert config.target.system_prompt == "no"
    assert config.stop.log_width == 1e-6
    assert load(MINIMAL, "cluster.models.max=3").cluster.models.max == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("budget.drws=3", "--set budget.drws=3: budget.drws: unknown key (nearest known key 'draws')"),
        ("budget.draws=x", "--set budget.draws=x: budget.draws: input should be a valid integer"),
        ("budget.draws=true", "--set budget.draws=true: budget.draws: a number is wanted, true given"),
        ("proposals.9.mix=1", "proposals is a list of 5 items, numbered from 0; there is no item '9'"),
        ("proposals.-1.mix=1", "there is no item '-1'"),
        ("run.name.x=1", "run.name is a single value and has no key 'x'"),
        ("run.name", "write it as section.key=value"),
        ("=3", "not a key"),
        ("run..name=3", "not a key"),
        ("stop.log_width=.nan", "not a finite number"),
        ("run=!!python/name:os.system", "tag"),
        (
            "judge={kind: regex, pattern: a, patern: b}",
            "judge.patern: unknown key (nearest known key 'pattern')",
        ),
    ],
)
def test_a_bad_override_is_named(load, override, said):
    lines = refusal(load, FULL, override)
    assert len(lines) == 1
    assert lines[0].startswith(f"--set {override}"[:40]) and said in lines[0]


def test_files_that_cannot_be_read(load, tmp_path):
    (tmp_path / "audit.yaml").write_text(MINIMAL)
    with pytest.raises(ConfigError, match=r"audt.yaml: no such file; did you mean .*audit\.yaml"):
        load_config(tmp_path / "audt.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    assert "audit.yaml:2: not UTF-8" in refusal(load, b"run:\n  name: \xff\n")[0]
    assert "not valid YAML" in refusal(load, "run: \x07")[0]


HOSTILE = {
    "aliases": lambda: (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9))
    ),
    "5 MB of aliases": lambda: "a: &a [" + "x, " * 1_700_000 + "]\nb: [*a, *a]\n",
    "just under the cap": lambda: "a: &a x\nb: [" + "*a, " * 240_000 + "]\n",
    "deep flow": lambda: "run: " + "[" * 900_000,
    "deep blocks": lambda: "".join(f"{' ' * i}a:\n" for i in range(1300)),
    "many keys": lambda: "".join(f"k{i}: {i}\n" for i in range(70_000)),
    "long number": lambda: "run: {seed: " + "9" * 900_000 + "}",
    "long word": lambda: "run: {name: " + "a" * 900_000 + "}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_fail_fast_and_small(tmp_path, name):
    """Each is read in a process of its own whose memory is measured."""
    path = tmp_path / "audit.yaml"
    path.write_text(HOSTILE[name]())
    code = (
        "import sys, time, resource\n"
        "from tailrisk.configfile import load_config\n"
        "from tailrisk.errors import ConfigError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "start = time.process_time()\n"
        "try:\n    load_config(sys.argv[1])\n"
        "except ConfigError as e:\n    assert len(str(e)) < 1500\n"
        "else:\n    raise SystemExit('accepted')\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(time.process_time() - start, (after - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < 1.0 and megabytes < 100.0


def test_dump_round_trips_and_the_digest_sees_every_value(load, tmp_path):
    config = load(FULL)
    dumped = dump_resolved(config)
    assert list(dumped) == list(type(config).model_fields)
    text = json.dumps(dumped, allow_nan=False)
    (tmp_path / "again.json").write_text(text)
    again = load_config(tmp_path / "again.json")  # JSON is YAML
    assert dump_resolved(again) == dumped and config_digest(again) == config_digest(config)
    assert config_digest(load(FULL, "stop.log_width=0.70000001")) != config_digest(config)
    assert config_digest(load(FULL, "proposals.1.scale=0")) == config_digest(config)


def test_the_dump_masks_a_password(load):
    config = load(MINIMAL, "tracking.uri=https://me:canary@host:1/x")
    assert dump_resolved(config)["tracking"]["uri"] == "https://me:***@host:1/x"
    assert config.tracking.uri == "https://me:canary@host:1/x"


def test_budget_must_hold_the_pilot(load):
    config = load(FULL)
    check_budget(config, 156)
    with pytest.raises(ConfigError, match=r"64 draws x 157 prompts = 10,048 draws, budget.draws is 10,000"):
        check_budget(config, 157)
    check_budget(load(FULL, "budget.tokens=20480"), 10)
    with pytest.raises(ConfigError, match=r"640 draws x 32 tokens = 20,480 tokens, budget.tokens is 20,479"):
        check_budget(load(FULL, "budget.tokens=20479"), 10)
    check_budget(load(FULL, "budget.pilot=12"), 10)
    with pytest.raises(ConfigError, match=r"set budget\.pilot to at least 12"):
        check_budget(load(FULL, "budget.pilot=11"), 10)
    with pytest.raises(ConfigError) as caught:
        check_budget(load(FULL, "budget.pilot=11", "budget.draws=11", "budget.tokens=1"), 2)
    assert len(str(caught.value).splitlines()) == 3


def test_a_wrong_key_of_a_judge_among_others_has_its_place(load):
    text = MINIMAL.replace(
        "{kind: refusal}", "{kind: all, judges: [{kind: refusal}, {kind: regex, patern: x}]}"
    )
    assert [line.partition(": ")[2] for line in refusal(load, text)] == [
        "judge.judges.1.pattern: this key is required and missing",
        "judge.judges.1.patern: unknown key (nearest known key 'pattern')",
    ]
