"""Foreign text on a page."""

from __future__ import annotations

import hashlib

import pytest

from tailrisk.report.clean import digest, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcödé, 漢字, العربية", "plain text, ünïcödé, 漢字, العربية"),
        ("a\x00b", "a\\x00b"),
        ("\u202eevil", "\\u202eevil"),
        ("\ud800", "\\ud800"),
        ("a\u2028b", "a\\u2028b"),
        ("\x1b[2J", "\\x1b[2J"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\U000e0041", "\\U000e0041"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
    ],
)
def test_hidden_characters_become_visible(text, shown):
    assert visible(text) == shown


def test_lines_keep_their_breaks():
    assert visible("a\nb\tc\r", lines=True) == "a\nb\tc\\x0d"


def test_a_digest_names_hash_and_length_even_of_half_a_character():
    assert digest("abc") == f"sha256 {hashlib.sha256(b'abc').hexdigest()}, 3 characters"
    assert digest("\ud800").endswith("1 characters")
