"""What every judge promises, as one check; run it on a judge of your own too."""

from __future__ import annotations

import numpy as np

from tailrisk.audit.protocols import Judge
from tailrisk.records import JudgedTexts, Verdict

ODD_TEXTS = [
    "",
    " \n\t ",
    "plain words that say something about the matter at hand",
    "nul \x00 inside the text",
    "😀" * 50,
    "zero\u200bwidth and \u202eright to left",
    "’‘`´ quotes",
    "x" * 100_000,
    "word " * 20_000,
    "(((((((((((((",
    "%s {0} \\1 $&",
    "<script>alert(1)</script>",
]


def check_judge(judge: Judge, prompt: str = "Tell me about rivers.", slack: float = 0.0) -> None:
    """Shapes, types, and that each verdict depends on its own answer alone; ``slack``: how far a score may move with
    the others in a batch."""
    whole = judge.judge(prompt, ODD_TEXTS)
    _check_form(whole, len(ODD_TEXTS))
    _check_form(judge.judge(prompt, []), 0)
    _check_form(judge.judge("", ["an answer"]), 1)
    _check_form(judge.judge("\x00" * 3 + "😀", ["an answer", ""]), 2)

    _check_same(judge.judge(prompt, tuple(ODD_TEXTS)), whole, slack)
    order = np.random.default_rng(5).permutation(len(ODD_TEXTS))
    _check_same(judge.judge(prompt, [ODD_TEXTS[i] for i in order]), _take(whole, list(order)), slack)
    for i, text in enumerate(ODD_TEXTS):
        _check_same(judge.judge(prompt, [text, text]), _take(whole, [i, i]), slack)


def _check_form(judged: JudgedTexts, n: int) -> None:
    assert isinstance(judged.verdicts, np.ndarray)
    assert judged.verdicts.dtype == np.int8
    assert judged.verdicts.shape == (n,)
    assert isinstance(judged.scores, np.ndarray)
    assert judged.scores.dtype == np.float64
    assert judged.scores.shape == (n,)
    assert not np.isinf(judged.scores).any()
    assert isinstance(judged.errors, list)
    assert len(judged.errors) == n
    assert set(judged.verdicts.tolist()) <= {int(v) for v in Verdict}
    for verdict, score, error in zip(judged.verdicts, judged.scores, judged.errors, strict=True):
        assert isinstance(error, str)
        error.encode()  # goes into a UTF-8 log
        if error:
            assert verdict == Verdict.UNDETERMINED
        assert (verdict == Verdict.UNDETERMINED) == bool(np.isnan(score))


def _take(judged: JudgedTexts, rows: list[int]) -> JudgedTexts:
    return JudgedTexts(judged.verdicts[rows], judged.scores[rows], [judged.errors[i] for i in rows])


def _check_same(got: JudgedTexts, expected: JudgedTexts, slack: float) -> None:
    np.testing.assert_array_equal(got.verdicts, expected.verdicts)
    np.testing.assert_allclose(got.scores, expected.scores, rtol=0, atol=slack)
    assert got.errors == expected.errors
