"""Whether a rewording still means the same, by the cosine of two sentence embeddings.

Needs the package sentence-transformers (the extra ``meaning``) and a model of it: a local folder or a hub id.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tailrisk.errors import ConfigError, ModelError
from tailrisk.perturbations.groups import Same

INSTALL = "pip install 'lm-tailrisk[meaning]'"


def embedding(model: str, base: Path, *, device: str | None = None) -> Same:
    """Compares texts with ``model``, a folder (relative to ``base``) or a hub id; no code of its repository is run.

    Raises:
        ConfigError: the package is not installed.
        ModelError: the model cannot be loaded.
    """
    try:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(f"--meaning needs the package sentence-transformers: {INSTALL}") from None
    folder = base / Path(model).expanduser()
    try:
        loaded = SentenceTransformer(
            str(folder) if folder.is_dir() else model, device=device, trust_remote_code=False
        )
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else ""
        raise ModelError(
            f"--meaning: {model!r} cannot be loaded ({type(error).__name__}: {reason})"
        ) from error

    def same(pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        if not texts:
            return []
        vectors = np.asarray(loaded.encode(texts, show_progress_bar=False), dtype=np.float64)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        if not np.isfinite(vectors).all():
            raise ModelError(f"--meaning: {model!r} gives numbers that are not finite")
        at = {text: i for i, text in enumerate(texts)}
        return [float(vectors[at[a]] @ vectors[at[b]]) for a, b in pairs]

    return same
