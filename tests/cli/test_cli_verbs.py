"""init, plan, show, report, doctor: what they print, what they refuse, which files they touch."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from fakerun import CASES, make_run

from tailrisk.cli import checks, run
from tailrisk.cli.plan import make_plan, relative_error, smallest_bound
from tailrisk.configfile import load_config
from tailrisk.prompts import load_prompts


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="module")
def going(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "going", CASES[:3], finished=False)


def test_init_writes_files_that_load(tmp_path):
    assert run(["init", str(tmp_path / "new")]) == 0
    config = load_config(tmp_path / "new" / "tailrisk.yaml")
    assert config.component_names == ("target", "rushed", "of-course")
    assert len(load_prompts(config)) == 3


def test_init_overwrites_nothing(tmp_path, capfd):
    (tmp_path / "prompts.jsonl").write_text("mine")
    assert run(["init", str(tmp_path)]) == 2
    assert "already there" in capfd.readouterr().err
    assert (tmp_path / "prompts.jsonl").read_text() == "mine"
    assert not (tmp_path / "tailrisk.yaml").exists()


def test_plan_states_size_and_bounds(tmp_path, capfd):
    run(["init", str(tmp_path)])
    capfd.readouterr()
    assert run(["plan", str(tmp_path / "tailrisk.yaml"), "--set", "budget.draws=3000"]) == 0
    out, err = capfd.readouterr()
    assert "at most 3,000: about 1,000 a prompt" in out
    assert "at most 72,000 generated" in out
    assert "below 0.015" in out, "-ln(0.05) / (1000 * 0.2)"
    assert err == ""


def test_plan_says_what_a_single_proposal_is_worth(tmp_path, capfd):
    run(["init", str(tmp_path)])
    path = tmp_path / "tailrisk.yaml"
    run(["plan", str(path)])
    assert "single proposal" not in capfd.readouterr().out
    one = '[{name: rushed, kind: system_prompt, text: "Quick."}]'
    assert run(["plan", str(path), "--set", f"proposals={one}"]) == 0
    # 600 draws for 3 prompts, a fifth of them the target's: 5 hits of 40.
    assert "below about 0.12 end unreliable" in " ".join(capfd.readouterr().out.split())


def test_plan_as_json(tmp_path, capfd):
    run(["init", str(tmp_path)])
    capfd.readouterr()
    assert run(["plan", str(tmp_path / "tailrisk.yaml"), "--json", "--set", "budget.tokens=9000"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["worst_tokens"] == 9000
    assert told["target_draws_per_prompt"] == pytest.approx(40)


def test_without_proposals_every_draw_is_plain(tmp_path):
    run(["init", str(tmp_path)])
    config = load_config(tmp_path / "tailrisk.yaml", ["proposals=[]"])
    assert make_plan(config, 3).target_draws_per_prompt == pytest.approx(200)


def test_the_smallest_bound_is_exact_to_first_order():
    n = 1000
    assert smallest_bound(n, 0.95) == pytest.approx(1 - 0.05 ** (1 / n), rel=2e-3)
    assert smallest_bound(1, 0.95) == 1.0


def test_the_relative_error_agrees_with_log_normal_weights():
    """Simulated: log(dP/dQ) under P is normal with mean L and variance 2 L."""
    rng = np.random.default_rng(1)
    divergence, n = 0.5, 400_000
    log_ratio = rng.normal(-divergence, math.sqrt(2 * divergence), n)  # under Q the mean is -L
    weights = np.exp(log_ratio)
    simulated = weights.std() / weights.mean() / math.sqrt(100)
    assert relative_error(1e-4, divergence, 100, 0.2) == pytest.approx(simulated, rel=0.02)


def test_the_relative_error_is_never_worse_than_the_targets_share_allows():
    assert relative_error(0.1, 50.0, 100, 0.2) == pytest.approx(math.sqrt(49 / 100))


def test_show_prints_each_prompt_with_status_and_reason(finished, capfd):
    assert run(["show", str(finished)]) == 0
    out = capfd.readouterr().out
    for case in CASES:
        assert case.id in out
    assert "broken: failed: non-finite logits at token 2" in out
    assert "3 ok" in out and "not finished" not in out
    assert "harm done" not in out


def test_show_reads_a_run_that_is_still_going(going, capfd):
    assert run(["show", str(going)]) == 0
    out = capfd.readouterr().out
    assert "the run is not finished" in out and "rarer" in out
    assert not (going / "estimates.json").exists()


def test_show_json_is_what_the_file_holds(finished, capfd):
    assert run(["show", str(finished), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == json.loads((finished / "estimates.json").read_text())


@pytest.mark.parametrize("verb", ["show", "report"])
def test_a_folder_that_is_no_run_is_one_message(tmp_path, capfd, verb):
    for folder in (tmp_path, tmp_path / "absent"):
        assert run([verb, str(folder)]) == 1
        err = capfd.readouterr().err
        assert err.startswith("error: ") and "Traceback" not in err


def test_report_prints_the_path_of_the_page(going, capfd):
    assert run(["report", str(going)]) == 0
    out = capfd.readouterr().out
    assert out.strip() == str(going / "report.html")
    assert "For 3 of 3 prompts" in (going / "report.html").read_text(encoding="utf-8")


def test_report_redacts(going):
    assert run(["report", str(going), "--redact"]) == 0
    assert "harm done" not in (going / "report.html").read_text(encoding="utf-8")


def test_report_as_json(finished, capfd):
    assert run(["report", str(finished), "--format", "json"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert made["schema"] == "tailrisk.report/1" and len(made["prompts"]["rows"]) == len(CASES)
    assert run(["show", str(finished), "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["estimates"]) == len(CASES)


@pytest.mark.parametrize("form", ["html", "json", "md"])
def test_report_writes_where_it_is_told_to(finished, tmp_path, capfd, form):
    before = (finished / "report.html").read_bytes() if (finished / "report.html").exists() else None
    path = tmp_path / f"made.{form}"
    assert run(["report", str(finished), "--format", form, "--out", str(path), "--redact"]) == 0
    assert capfd.readouterr().out.strip() == str(path)
    text = path.read_text(encoding="utf-8")
    assert "What is not claimed" in text or "Not claimed" in text or '"not_claimed"' in text
    assert "harm done" not in text and CASES[0].id in text
    assert (finished / "report.html").read_bytes() == before if before is not None else True


def test_verbose_shows_the_traceback(tmp_path, capfd):
    assert run(["show", str(tmp_path), "-v"]) == 1
    assert "Traceback" in capfd.readouterr().err
    assert run(["show", str(tmp_path)]) == 1
    assert "Traceback" not in capfd.readouterr().err, "-v holds for one command"


def test_usage_errors_give_2(capfd):
    assert run(["audit"]) == 2
    assert run(["audit", "x.yaml", "--fail-above", "2"]) == 2
    assert run(["nonsense"]) == 2


def test_version(capfd):
    from tailrisk import __version__

    assert run(["--version"]) == 0
    assert capfd.readouterr().out.strip() == f"tailrisk {__version__}"


TORCH = '{"gpus": [], "cpu": "x86_64 with amx_bf16"}'


def fake_imports(monkeypatch, broken=()):
    def tried(name, program):
        return checks.Import(name not in broken, "ImportError: no" if name in broken else TORCH)

    monkeypatch.setattr(checks, "try_import", tried)


def test_doctor_passes_on_this_machine(monkeypatch, capfd):
    fake_imports(monkeypatch)
    assert run(["doctor"]) == 0
    out = capfd.readouterr().out
    for name in (
        "python",
        "packages",
        "cores",
        "memory",
        "disk",
        "cache",
        "torch",
        "ray",
        "mlflow",
        "processor",
        "gpu",
    ):
        assert [line for line in out.splitlines() if line[2:].startswith(name)], name
    assert "✗" not in out


def test_doctor_names_the_fix_of_a_library_that_does_not_load(monkeypatch, capfd):
    fake_imports(monkeypatch, broken=("ray",))
    assert run(["doctor"]) == 1
    out = capfd.readouterr().out
    assert "✗ ray: " in out and "ImportError: no" in out
    assert "fix: pip install --force-reinstall ray" in out


def test_doctor_names_the_processor_and_the_cards():
    found = checks.Import(True, json.dumps({"gpus": [["card", 2**30]], "cpu": "x86_64 with avx2"}))
    assert checks.processor(found) == checks.Check("processor", "ok", "x86_64 with avx2")
    assert checks.gpu(found).seen == "card (1 GiB)"
    broken = checks.Import(False, "ImportError: no")
    assert {check(broken).state for check in (checks.processor, checks.gpu)} == {"note"}


def test_doctor_sees_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TAILRISK_CACHE", str(tmp_path / "file" / "below"))
    assert checks.cache().state == "missing"
    monkeypatch.setenv("TAILRISK_CACHE", str(tmp_path / "not" / "yet"))
    assert checks.cache().state == "ok"
    assert not (tmp_path / "not").exists()


def test_doctor_tells_of_a_token_that_others_can_read_and_of_open_clusters(tmp_path, monkeypatch, capfd):
    fake_imports(monkeypatch)
    token = tmp_path / "auth_token"
    token.write_text("secret-token")
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert run(["doctor"]) == 0, "it is told, not refused"
    out = capfd.readouterr().out
    assert f"– ray token: {token} can be read by others (mode 644)" in out
    assert f"fix: chmod 600 {token}" in out and "secret-token" not in out
    assert "– RAY_ADDRESS: audits join 10.0.0.7:6379 without a token" in out and "CVE-2023-48022" in out
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert run(["doctor"]) == 0
    out = capfd.readouterr().out
    assert f"✓ ray token: {token}, for you alone" in out and "✓ RAY_ADDRESS: 10.0.0.7:6379" in out


def test_a_library_is_tried_in_its_own_process():
    assert checks.try_import("json", "import json").works
    broken = checks.try_import("x", "import os; os._exit(7)")
    assert (broken.works, broken.output) == (False, "exit status 7")
    assert "ModuleNotFoundError" in checks.try_import("y", "import not_there_at_all").output
