"""The device a run computes on, the dtype of its matrix products, PyTorch's process-wide switches.

device = devices.choose("auto")
dtype = devices.matmul_dtype("auto", device)
"""

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import torch

from lm.system import files

CACHE_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"  # https://bford.info/cachedir
MANY_THREADS = 64  # that any machine can start, if not run at once


def choose(name: str) -> torch.device:
    """The device called `name`, or the fastest one for auto; ValueError if it is absent."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(known for known, is_there in available.items() if is_there)
    if not available[name]:
        raise ValueError(f"train.device={name} is not available here: use train.device=auto or cpu")
    return torch.device(name)


def matmul_dtype(name: str, device: torch.device, low_precision: bool = True) -> torch.dtype:
    """The dtype of matrix products.

    auto is bfloat16 where the model allows low precision and the processor multiplies in bfloat16
    natively; emulated, it would be slower than float32.
    """
    if name == "auto":
        name = "bfloat16" if low_precision and _has_bfloat16(device) else "float32"
    return getattr(torch, name)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.11 and later
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


# Dense bfloat16 operations a second, from the makers' data sheets; the first name that fits.
PEAK_FLOPS = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def peak_flops(device: torch.device) -> float | None:
    """Operations a second that the device can do at most; None if that is not known.

    The share of them that a run uses is its MFU.
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)  # NVIDIA A100-SXM4-80GB
    for known, flops in PEAK_FLOPS.items():
        if re.search(rf"\b{known}\b", name):
            return flops
    return None


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Matrix products in `dtype`, weights and sums in float32; nothing to do for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def configure(threads: int, deterministic: bool) -> None:
    """Set PyTorch's process-wide switches, all of them, as the job before may have changed them.

    Raises ValueError for more threads than this machine can start: the process would crash.
    """
    most = max(MANY_THREADS, 4 * (os.cpu_count() or 1))
    if threads > most:
        raise ValueError(
            f"train.threads={threads}: this machine has {os.cpu_count()} cores and takes at most "
            f"{most}; train.threads=0 is PyTorch's choice"
        )
    torch.set_num_threads(threads or _default_threads())
    torch.set_default_dtype(torch.float32)
    # torch.use_deterministic_algorithms would import the compiler too: a second of every start.
    torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    torch.backends.cudnn.allow_tf32 = False  # on by default: a GRU in float32 would not be
    switches: Any = torch.utils.deterministic
    switches.fill_uninitialized_memory = False  # 6 % of a step, for debugging
    _keep_freed_memory()
    if deterministic:  # cuBLAS reads this when its first handle is made
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors instead of returning it to the system.

    Fetching it again, page by page, takes up to a third of a CPU step. Does nothing where the C
    library is another one.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: larger ones alone are mapped; the most
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: bytes at the end of the heap kept free


_DEFAULT_THREADS: list[int] = []


def _default_threads() -> int:
    """PyTorch's own choice, as it was before anything here changed it."""
    if not _DEFAULT_THREADS:
        _DEFAULT_THREADS.append(torch.get_num_threads())
    return _DEFAULT_THREADS[0]


def stay_plain(function: Callable) -> None:
    """Mark one of PyTorch's functions as not to be compiled.

    Its first call would import all of torch._dynamo, 0.7 s long, only to leave it alone.
    """
    if plain := getattr(function, "__wrapped__", None):
        plain.__dynamo_disable = plain


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU or this machine has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # the CPU's


def keep_compiled_code() -> None:
    """Have PyTorch's compiler keep its code in the cache, unless the environment says where.

    Its own place is a temporary folder. The compiler knows code again by PyTorch, processor, shapes
    and source. In a cache that another user made it stays where PyTorch has it: it would be run.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    folder = files.cache_dir().absolute() / "compiled"
    try:
        files.make_folder(folder, mode=0o700)
        # It holds .py files, which are no corpus.
        (folder / "CACHEDIR.TAG").write_text(CACHE_TAG, encoding="utf-8")
        is_own = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    except OSError:  # a cache that nobody may write to
        return
    if is_own:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
