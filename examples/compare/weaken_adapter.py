"""Writes the safety adapter of examples/quickstart again, weaker: what it adds to the weights times a scale.

A LoRA adds B A alpha / r, so the same factors with a smaller ``lora_alpha`` are the weaker adapter, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS, FACTORS = "adapter_config.json", "adapter_model.safetensors"


def weaken(source: Path, out: Path, scale: float) -> None:
    """A PEFT folder ``out`` like ``source`` with ``lora_alpha`` times ``scale``."""
    options = json.loads((source / OPTIONS).read_text(encoding="utf-8"))
    options["lora_alpha"] = options["lora_alpha"] * scale
    out.mkdir(parents=True, exist_ok=True)
    (out / OPTIONS).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(source / FACTORS, out / FACTORS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=0.7)
    parser.add_argument("--source", type=Path, default=HERE.parent / "quickstart" / "safety-adapter")
    parser.add_argument("--out", type=Path, default=HERE / "weakened-adapter")
    options = parser.parse_args()
    weaken(options.source, options.out, options.scale)
    print(options.out)


if __name__ == "__main__":
    main()
