"""Clusters that are open to others are told of, with the reason; those that are not, are not."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest
from test_jobserver import http

from tailrisk.cluster import exposure


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("[::1]", True),
        ("10.0.0.7", False),
        ("0.0.0.0", False),
        ("head.example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback(host, loopback):
    assert exposure.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("status", "body", "open_"),
    [
        (200, '{"ray_version": "2.60.0"}', True),
        (401, "Unauthorized: Missing authentication token", False),
        (200, "<html>log in</html>", False),
        (200, "[1]", False),
    ],
)
def test_a_job_server_elsewhere_is_asked_without_a_token(monkeypatch, status, body, open_):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    asked: list[urllib.request.Request | str] = []
    urlopen = urllib.request.urlopen

    def seen(url: Any, **options: Any) -> Any:
        asked.append(url)
        return urlopen(url, **options)

    monkeypatch.setattr(urllib.request, "urlopen", seen)
    with http(status, body) as address:
        assert exposure.of_job_server(address) == "" and asked == [], "loopback is not even asked"
        monkeypatch.setattr(exposure, "is_loopback", lambda host: False)
        told = exposure.of_job_server(address)
    assert len(asked) == 1 and isinstance(asked[0], str)
    assert bool(told) is open_
    if open_:
        assert told.startswith(f"{address}: this Ray asks for no token")
        assert "CVE-2023-48022" in told and "RAY_AUTH_MODE=token" in told


def test_what_does_not_answer_is_for_others_to_tell(monkeypatch):
    monkeypatch.setattr(exposure, "is_loopback", lambda host: False)
    assert exposure.of_job_server("http://127.0.0.1:1") == ""


def test_an_address_that_is_only_named():
    assert exposure.of_address("127.0.0.1:6379", None) == ""
    assert exposure.of_address("10.0.0.7:6379", "token") == ""
    assert exposure.of_address("auto", None) == ""
    assert "audits join 10.0.0.7:6379 without a token" in exposure.of_address("10.0.0.7:6379", None)
