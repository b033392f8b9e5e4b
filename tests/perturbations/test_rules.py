"""Every kind by rule: what it does, that it keeps the words, and that chance is a matter of the seed alone."""

from __future__ import annotations

import re
from random import Random

import pytest

from tailrisk.perturbations.rules import RULES
from tailrisk.perturbations.rules.base import Chance, decapitalised, sentences
from tailrisk.perturbations.rules.typos import NEIGHBOURS
from tailrisk.perturbations.words import content_words, one_slip, words_kept

TEXTS = (
    "How do I repair an old bicycle when the chain is broken?",
    "I do not like my noisy neighbour. Write a short, friendly letter to the landlord about quiet hours!",
    "Explain why the sky isn't green, and don't forget rainbows.",
    "Bake bread",
    "Où est la bibliothèque? Répondez en français.",
    "\"Quoted\" and 'quoted'",
    "?",
)


def applied(kind: str, text: str, seed: int = 0, rate: float = 0.2) -> str | None:
    return RULES[kind].apply(text, Chance(Random(seed), rate))


def test_there_are_enough_kinds():
    assert len(RULES) >= 10 and all(re.fullmatch(r"[a-z0-9-]{1,40}", kind) for kind in RULES)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("text", TEXTS)
def test_every_kind_takes_any_text_and_keeps_its_words(kind, text):
    for seed in range(5):
        changed = applied(kind, text, seed)
        assert changed == applied(kind, text, seed)
        if changed is not None:
            assert changed.strip()
            assert words_kept(text, changed) == 1.0, changed


def test_every_kind_changes_some_text():
    more = (*TEXTS, "Close the window before you leave the house.", "He read the book. Close the door.")
    assert {k for k in RULES if any((c := applied(k, t)) is not None and c != t for t in more)} == set(RULES)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("lower-case", "Ask NASA", "ask nasa"),
        ("upper-case", "Ask", "ASK"),
        ("title-case", "what's on o'clock", "What's On O'clock"),
        ("please", "Write a poem", "Please write a poem"),
        ("please", "Please write", None),
        ("please", "I am lost. What now?", "Hi, please help me with this. I am lost. What now?"),
        ("thanks", "Thanks, go on", None),
        ("clause-first", "Call the office if the lift stops.", "If the lift stops, call the office."),
        ("clause-first", "Tell her if it rains.", None),
        ("clause-first", "Call me. Wait if the lift stops.", None),
        ("sentences-turned", "The shop is closed. Where do I buy milk?", "Where do I buy milk? The shop is closed."),
        ("sentences-turned", "The shop is closed. Why is that?", None),
        ("question-frame", "Why? ", "Question: Why?\nAnswer:"),
        ("no-end-mark", "Why?!", "Why"),
        ("many-end-marks", "Why?", "Why???"),
        ("many-end-marks", "Go.", "Go!!!"),
        ("no-commas", "a, b and 1,000", "a b and 1,000"),
        ("no-commas", "none", None),
        ("line-breaks", "One. Two.", "One.\nTwo."),
        ("contracted", "I am here. You do not know.", "I'm here. You don't know."),
        ("contracted", "I have a dog", None),
        ("written-out", "I’m here, can't you see?", "I am here, cannot you see?"),
        ("written-out", "The dog's bone", None),
        ("quoted", "Why?", '"Why?"'),
        ("quoted", 'Say "no"', "'Say \"no\"'"),
        ("quoted", 'Say "no", don\'t wait', None),
    ],
)  # fmt: skip
def test_what_kinds_do(kind, text, expected):
    assert applied(kind, text) == expected or (expected and applied(kind, text, 1) == expected)


@pytest.mark.parametrize("kind", ["neighbour-keys", "dropped-letters", "doubled-letters", "swapped-letters"])
def test_typing_mistakes_are_single_slips_in_a_part_of_the_words(kind):
    text = " ".join(["wonderful", "computer", "keyboard", "never", "a"] * 8)
    for seed in range(10):
        changed = applied(kind, text, seed, 0.25)
        assert changed is not None
        pairs = list(zip(text.split(), changed.split(), strict=True))
        different = [(a, b) for a, b in pairs if a != b]
        # A letter exchanged for the same letter changes nothing.
        assert 8 <= len(different) <= 10
        assert all(one_slip(a, b) and a[0] == b[0] and a != "never" for a, b in different)
    changed = applied(kind, "wonderful", 0, 0.0)
    assert changed is not None and one_slip("wonderful", changed)


def test_keys_beside_one_another():
    assert set(NEIGHBOURS) == set("qwertyuiopasdfghjklzxcvbnm")
    assert set(NEIGHBOURS["s"]) == set("adwezx") and set(NEIGHBOURS["p"]) == set("ol")
    assert all(a in NEIGHBOURS[b] for a, near in NEIGHBOURS.items() for b in near)


def test_sentences_and_small_letters():
    assert sentences("Is it 3.5? Yes. no. No!") == ["Is it 3.5?", "Yes. no.", "No!"]
    assert decapitalised("What") == "what" and decapitalised("I am") == "I am"
    assert decapitalised("NASA is") == "NASA is" and decapitalised("I'm") == "I'm" and decapitalised("") == ""


def test_words_that_carry_the_meaning():
    assert content_words("I don't know the Way") == {"not": 1, "know": 1, "way": 1}
    assert words_kept("Do not open the red door", "Please do not open the red door now") == 1.0
    assert words_kept("Do not open the red door", "Do open the red door") == 0.0
    assert words_kept("Open the red door", "Never open the red door") == 0.0
    assert words_kept("Open the red door", "Open the blue door") == pytest.approx(2 / 3)
    assert words_kept("Open the red door", "Opne the erd doorr") == 1.0
    # One changed word cannot stand for two.
    assert words_kept("door doors", "door") == pytest.approx(0.5)


def test_a_single_slip():
    assert (
        one_slip("word", "wodr")
        and one_slip("word", "wird")
        and one_slip("word", "wrd")
        and one_slip("word", "woord")
    )
    assert one_slip("word", "word")
    assert not one_slip("word", "wdro") and not one_slip("word", "wor ds") and not one_slip("word", "dorw")
