"""What a run finds around it: device, number type, seeds, and the version of its code.

device = runtime.device("auto")
torch.manual_seed(runtime.seed(cfg.seed, "dropout", step))
"""

import contextlib
import ctypes
import os
import re
import sys
from typing import Any

import torch


def device(name: str) -> torch.device:
    """The device called `name`, or the fastest one for auto; ValueError if it is absent."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(n for n, there in available.items() if there)
    if not available[name]:
        raise ValueError(f"train.device={name} is not available here: use train.device=auto or cpu")
    return torch.device(name)


def dtype(name: str, where: torch.device, wanted: bool = True) -> torch.dtype:
    """The number type of the matrix products. auto is bfloat16 where the model wants it and the
    processor multiplies in it natively; emulated, it would be slower than float32."""
    if name == "auto":
        name = "bfloat16" if wanted and _native_bfloat16(where) else "float32"
    return getattr(torch, name)


def _native_bfloat16(where: torch.device) -> bool:
    if where.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if where.type == "cpu":
        ask = getattr(torch.cpu, "get_capabilities", dict)  # PyTorch 2.11 and later
        return bool({"avx512_bf16", "amx_bf16", "bf16"} & {k for k, v in ask().items() if v})
    return False


# Dense bfloat16 operations a second, from the makers' data sheets; the first name that fits.
PEAK = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def peak_flops(where: torch.device) -> float | None:
    """What the device can do at most, for the share of it that is used (MFU); None: not known."""
    if where.type != "cuda":
        return None
    name = torch.cuda.get_device_name(where)  # NVIDIA A100-SXM4-80GB
    whole = (flops for known, flops in PEAK.items() if re.search(rf"\b{known}\b", name))
    return next(whole, None)


def autocast(where: torch.device, number: torch.dtype) -> contextlib.AbstractContextManager:
    """Matrix products in `number`, weights and sums in float32; nothing to do for float32."""
    if number == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(where.type, dtype=number)


def configure(threads: int, deterministic: bool) -> None:
    """Set PyTorch's process-wide switches, all of them, as the job before may have changed them."""
    torch.set_num_threads(threads or _default_threads())
    torch.set_default_dtype(torch.float32)
    # torch.use_deterministic_algorithms would import the compiler too: a second of every start.
    torch._C._set_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False  # on by default: a GRU in float32 would not be
    torch.utils.deterministic.fill_uninitialized_memory = False  # 6 % of a step, for debugging
    _keep_freed_memory()
    if deterministic:  # cuBLAS reads this when its first handle is made
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors instead of returning it to the system: fetching
    it again, page by page, takes up to a third of a CPU step. Elsewhere this does nothing."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: larger ones alone are mapped; the most
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: bytes at the end of the heap kept free


_DEFAULT_THREADS: list[int] = []


def _default_threads() -> int:
    """PyTorch's own choice, as it was before anything here changed it."""
    if not _DEFAULT_THREADS:
        _DEFAULT_THREADS.append(torch.get_num_threads())
    return _DEFAULT_THREADS[0]


def stay_plain(function: Any) -> None:
    """Keep the compiler out of one of PyTorch's functions: its first call would import all of
    torch._dynamo, 0.7 s long, only to have it leave the function alone. So it finds that told."""
    if plain := getattr(function, "__wrapped__", None):
        plain.__dynamo_disable = plain


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or this machine has no memory left."""
    told = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # the CPU's
    return told or isinstance(error, (MemoryError, torch.OutOfMemoryError))
