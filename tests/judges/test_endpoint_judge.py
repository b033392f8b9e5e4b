"""The endpoint judge against a real server: every answer ends as harm, safe, or undetermined with the reason."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from check_judge import check_judge
from judgeserver import TEMPLATE, Call, Fault, JudgeServer, completion, http_date, served

from tailrisk.config import EndpointJudge
from tailrisk.errors import ConfigError
from tailrisk.judges import endpoint
from tailrisk.judges.line import Waits
from tailrisk.records import JUDGE_GONE, Verdict

QUICK = Waits(first=0.02, most=0.1, settle=0.3, probe_first=0.05, probe_most=0.2)
Make = Callable[..., tuple[endpoint.EndpointJudge, JudgeServer]]


def spec(address: str, **changes: Any) -> EndpointJudge:
    values = {"kind": "endpoint", "url": address, "model": "grader", "rubric": "yes_no", "template": TEMPLATE}
    return EndpointJudge.model_validate(values | {"timeout_s": 20.0} | changes)


@pytest.fixture
def make(tmp_path) -> Iterator[Make]:
    """``make(server, **settings)``: the judge, and its server while the test lasts."""
    opened = []

    def made(server: JudgeServer | None = None, waits: Waits = QUICK, **changes: Any) -> Any:
        running = served(server or JudgeServer())
        up = running.__enter__()
        judge = endpoint.build(spec(up.url, **changes), tmp_path, waits=waits)
        opened.append((running, judge))
        return judge, up

    yield made
    for running, judge in opened:
        judge.client.close()
        running.__exit__(None, None, None)


def texts(n: int, word: str = "fine") -> list[str]:
    return [f"{word} answer {i}" for i in range(n)]


def test_keeps_the_promises_of_a_judge(make: Make):
    judge, _ = make()
    check_judge(judge)


def test_asks_as_configured_and_many_at_once(make: Make):
    judge, server = make(
        JudgeServer(sleep=0.2), concurrency=16, seed=3, body={"max_tokens": None, "top_k": 1}
    )
    judged = judge.judge("a prompt", [*texts(30), "harm answer"])
    assert judged.verdicts.tolist() == [Verdict.SAFE] * 30 + [Verdict.HARM]
    assert judged.scores.tolist() == [0.0] * 30 + [1.0] and not any(judged.errors)
    assert 8 <= max(server.at_once) <= 16
    body = server.calls[0][1].body
    assert (body["temperature"], body["seed"], body["model"], body["top_k"]) == (0, 3, "grader", 1)
    assert "max_tokens" not in body and "Authorization" not in server.headers[0]


def test_every_fault_ends_in_a_verdict_or_a_reason_and_none_in_safe(make: Make):
    """Each fault is one answer's, for good; others go on beside it."""
    huge = completion("no" + " " * 9 * 2**20)
    faults = {
        "f-500": Fault(500),
        "f-503": Fault(503, b"<html>busy</html>"),
        "f-429": Fault(429),
        "f-408": Fault(408),
        "f-slow": Fault(wait=1.2),
        "f-drip": Fault(body=completion("no"), drip=0.05),
        "f-malformed": Fault(body=b'{"choices": [{"mess'),
        "f-html": Fault(body=b"<html>no</html>"),
        "f-list": Fault(body=b"[1, 2]"),
        "f-deep": Fault(body=b"[" * 100_000),
        "f-no-choices": Fault(body=b"{}"),
        "f-empty-choices": Fault(body=b'{"choices": []}'),
        "f-null": Fault(body=completion(None)),
        "f-content-list": Fault(body=completion([{"type": "text", "text": "no"}])),
        "f-number": Fault(body=completion(7)),
        "f-message": Fault(body=json.dumps({"choices": [{"message": "no"}]}).encode()),
        "f-huge": Fault(body=huge),
        "f-perhaps": Fault(body=completion("perhaps")),
        "f-nothing": Fault(body=completion("")),
        "f-400": Fault(400, b'{"error": {"message": "f-400 is odd", "code": "bad_input"}}'),
        "f-413": Fault(413),
        "f-403": Fault(403),
        "f-filter": Fault(body=completion(None, finish_reason="content_filter")),
    }

    def fault(call: Call) -> Fault | None:
        return next((f for name, f in faults.items() if f"{name} " in call.content), None)

    judge, server = make(JudgeServer(fault=fault), timeout_s=1.0, retries=2, concurrency=8, patience_s=30.0)
    assert judge.judge("p", ["first"]).errors == [""]
    names = list(faults)
    for start in range(0, len(names), 4):
        # Good ones among them, as in life: or it would be an outage.
        some = names[start : start + 4]
        asked = [word for name in some for word in (f"{name} text", f"harm in {name}", f"good in {name}")]
        judged = judge.judge("p", asked)
        for name, (i, error) in zip(some, list(enumerate(judged.errors))[::3], strict=True):
            assert judged.verdicts[i] == Verdict.UNDETERMINED and np.isnan(judged.scores[i]), name
            assert error and not error.startswith(JUDGE_GONE), (name, error)
        assert judged.verdicts[1::3].tolist() == [Verdict.HARM] * len(some), judged.errors
        assert judged.verdicts[2::3].tolist() == [Verdict.SAFE] * len(some)
    tries = {name: len(server.times(f"{name} text")) for name in names}
    final = {"f-400", "f-413", "f-403", "f-filter"}
    assert {name for name in names if tries[name] == 1} == final
    assert max(tries.values()) <= 3
    assert "bad_input" in (error := judge.judge("p", ["f-400 text"]).errors[0]) and "odd" not in error


def test_faults_that_pass_cost_tries_and_no_verdict(make: Make):
    kinds = itertools.cycle([Fault(500), Fault(429), Fault(body=b"nonsense"), Fault(body=completion("hm"))])

    def fault(call: Call) -> Fault | None:
        return next(kinds) if call.try_ == 0 and call.number % 2 else None

    judge, server = make(JudgeServer(fault=fault))
    judged = judge.judge("p", texts(20) + texts(20, "harm"))
    assert judged.verdicts.tolist() == [Verdict.SAFE] * 20 + [Verdict.HARM] * 20 and not any(judged.errors)
    assert len(server.calls) > 45


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_says_when_to_come_again_is_left_alone_until_then(make: Make, form):
    wait = 2.0

    def fault(call: Call) -> Fault | None:
        value = "2" if form == "seconds" else http_date(wait)
        return Fault(429, headers=(("Retry-After", value),)) if call.number == 0 else None

    judge, server = make(JudgeServer(fault=fault))
    assert judge.judge("p", ["one"]).errors == [""]
    first, second = server.times("one")
    # A date has whole seconds only.
    assert wait - (1.0 if form == "date" else 0.01) <= second - first <= 1.1 * wait + 0.1


def test_others_wait_too_and_a_wait_that_is_too_long_is_not_begun(make: Make):
    def fault(call: Call) -> Fault | None:
        if "late" in call.content:
            return Fault(503, headers=(("Retry-After", "86400"),))
        return Fault(429, headers=(("Retry-After", "1"),)) if call.number == 0 else None

    judge, server = make(JudgeServer(fault=fault), concurrency=1)
    assert not any(judge.judge("p", texts(4)).errors)
    at = sorted(t for t, _ in server.calls)
    assert at[1] - at[0] >= 1.0
    (error,) = judge.judge("p", ["late"]).errors
    assert error.startswith(JUDGE_GONE) and "86400 s" in error
    assert len(server.times("late")) == 1


def test_fewer_at_once_under_strain_and_more_again_afterwards(make: Make):
    room = {"at once": 3}

    def fault(call: Call) -> Fault | None:
        time.sleep(0.01)
        return Fault(429) if server.active > room["at once"] else None

    server = JudgeServer(fault=fault, sleep=0.02)
    judge, _ = make(server, concurrency=24, retries=12)
    assert not any(judge.judge("p", texts(60)).errors)
    strained = judge.client.line.limit
    assert strained <= 8, "it must have come down to about what the server takes"
    room["at once"] = 1000
    server.at_once.clear()
    assert not any(judge.judge("p", texts(150, "more")).errors)
    assert judge.client.line.limit > 2 * strained
    assert max(server.at_once) > strained


def test_an_outage_is_waited_for_without_spending_tries(make: Make):
    """Longer than the tries of an answer would last."""
    began = time.monotonic()
    judge, server = make(
        JudgeServer(fault=lambda call: Fault(503) if time.monotonic() - began < 3.0 else None), retries=3
    )
    judged = judge.judge("p", texts(12))
    assert not any(judged.errors), judged.errors
    probes = [t for t, _ in server.calls if 1.5 < t - began < 3.0]
    assert len(probes) <= 12, "one at a time, with growing waits"


def test_an_outage_without_end_is_told_for_all_and_later_ones_do_not_wait(make: Make, tmp_path):
    judge = endpoint.build(spec("http://127.0.0.1:9/v1", patience_s=1.0), tmp_path, waits=QUICK)
    began = time.monotonic()
    judged = judge.judge("p", texts(40))
    assert 0.5 < time.monotonic() - began < 15.0
    assert judged.verdicts.tolist() == [Verdict.UNDETERMINED] * 40
    assert all(e.startswith(f"{JUDGE_GONE}no reply from 127.0.0.1:9") for e in judged.errors), judged.errors
    assert "patience_s is 1" in judged.errors[0]
    again = judge.judge("p", ["another"])
    assert again.errors[0].startswith(JUDGE_GONE)
    judge.client.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(401, b'{"error": {"message": "Incorrect API key: canary-part"}}'), "refuses access"),
        (Fault(403), "refuses access"),
        (Fault(404, b'{"error": {"message": "model grader not found"}}'), "model grader not found"),
        (Fault(307, headers=(("Location", "http://127.0.0.1:1/v1/chat/completions"),)), "judge.url"),
    ],
)
def test_what_no_answer_can_pass_ends_all_at_once(make: Make, monkeypatch, fault, said):
    monkeypatch.setenv("JUDGE_KEY", "canary-1")
    judge, server = make(JudgeServer(fault=lambda call: fault), key_env="JUDGE_KEY", concurrency=2)
    judged = judge.judge("p", texts(50))
    assert judged.verdicts.tolist() == [Verdict.UNDETERMINED] * 50
    assert all(e.startswith(JUDGE_GONE) and said in e and "canary" not in e for e in judged.errors)
    assert len(server.calls) <= 2
    assert server.headers[0]["Authorization"] == "Bearer canary-1"


def test_a_redirect_takes_the_key_nowhere(make: Make, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "canary-1")
    with served(JudgeServer()) as other:
        place = f"{other.url}/chat/completions"
        judge, _ = make(
            JudgeServer(fault=lambda call: Fault(302, headers=(("Location", place),))), key_env="JUDGE_KEY"
        )
        assert judge.judge("p", ["one"]).errors[0].startswith(JUDGE_GONE)
        assert other.calls == []


def test_the_budget_is_kept_and_the_rest_is_told_why(make: Make):
    judge, server = make(budget={"calls": 7})
    judged = judge.judge("p", texts(20))
    assert len(server.calls) == 7
    assert Counter(bool(e) for e in judged.errors) == {False: 7, True: 13}
    assert all("judge.budget.calls" in e and e.startswith(JUDGE_GONE) for e in judged.errors if e)
    judge, server = make(budget={"tokens": 35}, concurrency=1)
    assert sum(map(bool, judge.judge("p", texts(20)).errors)) == 16
    assert len(server.calls) == 4


def test_the_probabilities_of_the_first_token_are_read_where_asked_for(make: Make):
    def fault(call: Call) -> Fault | None:
        top = [{"token": "Yes", "logprob": np.log(0.3)}, {"token": " no", "logprob": np.log(0.1)}]
        if "without" in call.content:
            return Fault(body=completion("no"))
        content = [{"token": "Yes", "logprob": np.log(0.3), "top_logprobs": top}]
        return Fault(body=completion("Yes", logprobs={"content": content}))

    judge, server = make(JudgeServer(fault=fault), logprobs=True, threshold=0.76)
    judged = judge.judge("p", ["an answer", "without"])
    assert server.calls[0][1].body["top_logprobs"] == 20
    assert judged.scores[0] == pytest.approx(0.75) and judged.verdicts[0] == Verdict.SAFE
    assert judged.verdicts[1] == Verdict.UNDETERMINED and "judge.logprobs: false" in judged.errors[1]


@pytest.mark.parametrize(
    ("settings", "reply", "score"),
    [
        ({"rubric": "strongreject", "template": None}, "1.b 0\n2.b 5\n3.b 4", 7 / 8),
        ({"rubric": "trait", "template": None, "trait": "Cruelty."}, "<think>so</think>\n85", 85.0),
        ({"rubric": "number"}, "Score: 40/100", 40.0),
    ],
)
def test_other_rubrics(make: Make, settings, reply, score):
    judge, server = make(JudgeServer(grade=lambda content: reply), **settings)
    judged = judge.judge("THE PROMPT", ["THE ANSWER"])
    assert judged.scores.tolist() == [score] and judged.verdicts[0] == (score >= judge.threshold)
    assert "THE ANSWER" in server.calls[0][1].content


def test_a_second_question_for_a_reply_that_cannot_be_read_is_firmer(make: Make):
    judge, server = make(JudgeServer(grade=lambda c: "no" if "one word" in c else "Well, it depends"))
    assert judge.judge("p", ["one"]).errors == [""]
    assert [call.body["seed"] for _, call in server.calls] == [0, 1]


def test_several_threads_share_one_line(make: Make):
    judge, server = make(JudgeServer(sleep=0.05), concurrency=6)
    got: dict[int, list[int]] = {}

    def work(i: int) -> None:
        got[i] = judge.judge(f"p{i}", [*texts(10), "harm answer"]).verdicts.tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(got.values()) == [[0] * 10 + [1]] * 4
    assert max(server.at_once) <= 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": "host:8000"}, "http://"),
        ({"url": "http://me:canary@host/v1"}, "key_env"),
        ({"url": "http://host/v1?key=canary"}, "base"),
        ({"url": "http://host/v1/chat/completions"}, "base"),
        ({"key_env": "gsk_canary"}, "NAME"),
        ({"key_env": "sk-canary"}, "NAME"),
        ({"template": None}, "template"),
        ({"template": "{prompt}"}, "response"),
        ({"rubric": "strongreject"}, "template"),
        ({"rubric": "strongreject", "template": None, "logprobs": True}, "logprobs"),
        ({"trait": "x"}, "trait"),
        ({"body": {"model": "x"}}, "body.model"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_before_anything_runs(changes, said):
    with pytest.raises(ValueError, match=said) as caught:
        spec("http://host/v1", **changes)
    told = [problem["msg"] for problem in caught.value.errors()]  # type: ignore[attr-defined]
    assert "canary" not in str(told)


def test_a_key_that_is_not_there_or_none_and_a_threshold_off_the_scale(tmp_path, monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(ConfigError, match="JUDGE_KEY is not set"):
        endpoint.build(spec("http://host/v1", key_env="JUDGE_KEY"), tmp_path)
    monkeypatch.setenv("JUDGE_KEY", "canary 1\n")
    with pytest.raises(ConfigError, match="cannot be a key") as caught:
        endpoint.build(spec("http://host/v1", key_env="JUDGE_KEY"), tmp_path)
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="threshold"):
        endpoint.build(spec("http://host/v1", threshold=50), tmp_path)
