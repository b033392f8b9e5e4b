"""Links between the pages lead somewhere, and every page is found from the index."""

from __future__ import annotations

from pathlib import Path

import pytest
from docpages import PAGES, ROOT, anchors, links

DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert target.is_relative_to(ROOT), f"{link}: outside of the repository"
        if anchor:
            assert target.suffix == ".md" and anchor in anchors(target), f"{link}: no such heading"


def test_the_index_has_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert set(DOCS.rglob("*.md")) - {index} <= linked
