"""Choose where and how precisely to compute: the device, bfloat16, the faster attention."""

import os

import torch


def best_device() -> torch.device:
    """Return this process's CUDA device where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # set by torchrun
    return torch.device("cpu")


def supports_bf16(device: torch.device) -> bool:
    """Say whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def attention_for(device: torch.device) -> str:
    """Return the name of the faster attention: on a CPU the plain one trains faster than SDPA.

    Measured on two cores with AVX-512 bf16: see ``tests/benchmarks``.
    """
    return "sdpa" if device.type == "cuda" else "eager"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out; the CPU has no class of its own for it."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)
