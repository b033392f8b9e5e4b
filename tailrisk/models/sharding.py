"""One model over several processes: its ranks run the same program and exchange what each layer needs.

Tensor parallel (every layer cut into pieces) and pipeline parallel (the layers dealt out) are transformers'
``DistributedConfig``; a process that has joined a group loads its part of every model, and sampling and scoring
are written as for one process. What a rank draws must be what every other rank draws, so the ranks compare it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tailrisk.config import Parallel
from tailrisk.errors import ClusterError, ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PretrainedConfig
    from transformers.distributed.configuration_utils import DistributedConfig


PIPELINED = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "llama",
    "mistral",
    "olmo",
    "olmo2",
    "olmo3",
    "phi3",
    "qwen2",
    "qwen3",
)
"""Architectures whose stack takes the states of other layers in the place of embeddings as they are."""
_CUT = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
"""What tensor parallelism cuts into equal pieces, by its name in an architecture's configuration."""

_joined: Parallel | None = None
_store: Any = None


def meeting_place() -> str:
    """host:port at which the ranks of a group meet, all of them on this machine; kept open by this process, which may
    be one of them."""
    global _store
    # The port is taken from now on: one that was only found free could be another's by the time of the meeting.
    _store = _tcp_store("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return f"127.0.0.1:{_store.port}"


def join(parallel: Parallel, rank: int, endpoint: str, timeout_s: float) -> None:
    """Makes this process rank ``rank`` of a group that meets at ``endpoint`` (somebody's ``meeting_place``), before any
    model is loaded; returns when all ranks are there. NCCL where there are GPUs, else gloo.

    Errors: ClusterError if they are not within ``timeout_s`` seconds.
    """
    import torch
    import torch.distributed as dist

    global _joined, _store
    # Ray shows each rank its own GPU alone: it is number 0 for all of them.
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(parallel.ranks), LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    host, _, port = endpoint.rpartition(":")
    limit = timedelta(seconds=timeout_s)
    try:
        if _store is None:
            _store = _tcp_store(host, int(port), is_master=False, timeout=limit)
        dist.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            store=_store,
            rank=rank,
            world_size=parallel.ranks,
            timeout=limit,
        )
    except Exception as error:
        raise ClusterError(
            f"rank {rank} of {parallel.ranks} could not meet the others at {endpoint} "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error
    _joined = parallel


def _tcp_store(*where: Any, **options: Any) -> Any:
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    return TCPStore(*where, **options)


def leave() -> None:
    """Ends the group of this process, if there is one."""
    import torch.distributed as dist

    global _joined, _store
    if _joined is not None:
        dist.destroy_process_group()
        _joined = _store = None


def distributed_config() -> DistributedConfig | None:
    """How a model is to be loaded in this process; None: whole."""
    if _joined is None or _joined.ranks == 1:
        return None
    from transformers.distributed.configuration_utils import DistributedConfig

    return DistributedConfig(
        tp_size=_joined.tensor, tp_plan="auto" if _joined.tensor > 1 else None, pp_size=_joined.pipeline
    )


def agree(tokens: NDArray[np.int64]) -> None:
    """Returns if all ranks have drawn the same token ids.

    Errors: ClusterError otherwise; ranks that go on with different texts would add up pieces of different passes.
    """
    if _joined is None or _joined.ranks == 1:
        return
    import hashlib

    import torch
    import torch.distributed as dist

    digest = hashlib.blake2b(tokens.tobytes(), digest_size=8).digest()
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    mine = torch.frombuffer(bytearray(digest), dtype=torch.int64).to(device)
    found = [torch.empty_like(mine) for _ in range(_joined.ranks)]
    dist.all_gather(found, mine)
    if len({int(f) for f in found}) > 1:
        raise ClusterError(
            "the ranks of a sharded model disagree about the token ids that were drawn; nothing drawn so is kept. "
            "Are all ranks of the same hardware and the same versions of torch and transformers?"
        )


def shared(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank 0's values on every rank: what ranks decide by must be equal to the last digit, or they part ways and wait
    for each other in vain."""
    if _joined is None or _joined.ranks == 1:
        return values
    import torch
    import torch.distributed as dist

    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sent = torch.from_numpy(values.copy()).to(device)
    dist.broadcast(sent, src=0)
    return sent.cpu().numpy()


def check_parallel(parallel: Parallel, config: PretrainedConfig, section: str) -> None:
    """Refuses a model that cannot be cut as ``section`` of the configuration says, from its architecture alone.

    Errors: ModelError that says what does not divide, and into how many pieces the model can be cut.
    """
    text = config.get_text_config()
    if parallel.pipeline > 1:
        if text.model_type not in PIPELINED:
            raise ModelError(
                f"{section}.pipeline_parallel: models of type {text.model_type} are not known to run so, "
                f"those of {', '.join(PIPELINED)} are; use tensor_parallel"
            )
        if parallel.pipeline > text.num_hidden_layers:
            raise ModelError(
                f"{section}.pipeline_parallel is {parallel.pipeline}, and the model has "
                f"{text.num_hidden_layers} layers"
            )
    if parallel.tensor > 1:
        if not getattr(text, "base_model_tp_plan", None):
            raise ModelError(
                f"{section}.tensor_parallel: transformers does not know how to cut models of type "
                f"{text.model_type}; set it to 1"
            )
        sizes = {name: int(size) for name in _CUT if (size := getattr(text, name, None))}
        if uneven := [f"{name} {size}" for name, size in sizes.items() if size % parallel.tensor]:
            fits = [n for n in range(1, min(sizes.values()) + 1) if not any(s % n for s in sizes.values())]
            raise ModelError(
                f"{section}.tensor_parallel is {parallel.tensor}, which does not divide the model's "
                f"{', '.join(uneven)}; sizes that do: {', '.join(map(str, fits))}"
            )
