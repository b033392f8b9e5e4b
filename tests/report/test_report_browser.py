"""The page in a real browser, where chromium and axe-core are; see ``browser`` for how to get them."""

from __future__ import annotations

import pytest
from browser import AXE, chromium, look
from fakerun import CASES, make_run
from test_report_page import HOSTILE

from tailrisk.report import render_report

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(chromium() is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.skipif(not AXE.exists(), reason="no axe-core: npm install --prefix /tmp/axe axe-core"),
]


@pytest.mark.parametrize("answers", ["harm done", HOSTILE])
def test_the_page_opens_without_errors_requests_or_violations(tmp_path, answers):
    found = look(render_report(make_run(tmp_path / "run", CASES, harmful_text=answers)))
    assert found["errors"] == [] and found["requests"] == [] and found["violations"] == []
    assert found["sections"] == 10 and found["figures"] == 10 and not found["wide"]
    assert found["sorted"] == "descending"
