"""Foreign text made safe to look at.

Control characters, bidirectional overrides and lone surrogates are replaced by a visible escape such as
``\\u202e``, so that text cannot reorder its surroundings, drive a terminal, or break a file's encoding.
HTML escaping is the template's job and comes after this.
"""

from __future__ import annotations

import hashlib
import unicodedata

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Joiners that ordinary writing systems and emoji need.
_NEEDED = {"\u200c", "\u200d", "\ufe0f"}


def visible(text: str, *, lines: bool = False) -> str:
    """``text`` with invisible and steering characters spelled out; ``lines`` keeps newlines and tabs."""
    if text.isprintable():
        return text
    kept = _NEEDED | ({"\n", "\t"} if lines else set())
    return "".join(c if c in kept or unicodedata.category(c) not in _HIDDEN else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def digest(text: str) -> str:
    """What stands in for a redacted text: its SHA-256 and its length in characters."""
    data = text.encode("utf-8", "surrogatepass")
    return f"sha256 {hashlib.sha256(data).hexdigest()}, {len(text)} characters"
