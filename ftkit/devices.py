"""Choose where and how precisely to compute: the device, bfloat16, the faster attention."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

# oneDNN keeps a compiled matrix product for every shape that it meets, and rows have all lengths:
# by default that is the larger part of what memory grows by. ``tests.benchmarks.training`` shows
# both speed and peak memory. Whoever sets the variables has the last word.
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "16")


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


def mixed_precision(
    device: torch.device, *, bf16: bool | None, fp16: bool | None
) -> torch.dtype | None:
    """Return what to compute in beside float32: as asked, or what the hardware has; else None.

    A GPU without bfloat16 (a T4) gets float16, whose loss must be scaled.
    """
    if bf16 or (bf16 is None and not fp16 and supports_bf16(device)):
        return torch.bfloat16
    by_default = bf16 is None and fp16 is None and device.type == "cuda"
    return torch.float16 if fp16 or by_default else None


def set_tf32(device: torch.device, allowed: bool) -> None:
    """Let a GPU round the factors of float32 products to TF32, or not; nothing on a CPU."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if allowed else "highest")


@contextmanager
def fork_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed inside the block, and as if nothing had happened after it.

    The generators of other devices are not touched: to copy the states of eight takes time.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def attention_for(device: torch.device) -> str | None:
    """Return the attention to ask for; None leaves the choice to transformers, as on a GPU.

    On a CPU the plain one trains faster than SDPA: measured on two cores with AVX-512 bf16, see
    ``tests/benchmarks``. Not every architecture has SDPA, so that nothing forces it.
    """
    return None if device.type == "cuda" else "eager"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out; the CPU has no class of its own for it."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def peak_memory_mib() -> float:
    """Return the most memory so far: of tensors on a GPU, else of the whole process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return process_peak_mib(os.getpid())


def process_peak_mib(pid: int) -> float:
    """Return the peak resident memory of a process; where no system tells, the present one."""
    status = Path(f"/proc/{pid}/status")
    if status.is_file():
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    info = psutil.Process(pid).memory_info()
    return getattr(info, "peak_wset", info.rss) / 2**20
