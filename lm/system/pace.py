"""How long a step takes on this machine when nothing else runs on it.

    seconds = pace.seconds_a_step(key, one_pass)    # one_pass() does a part, and says of how many

Measured once for each machine and key, and then read from the cache, so that what depends on it is
decided alike at each start.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lm.system import files, ranks, store
from lm.system.errors import DamagedError

log = logging.getLogger(__name__)
FILE = "pace.json"
PASSES = 4  # at most; the first one warms up
ENOUGH = 0.5  # seconds of passes


def seconds_a_step(key: Sequence[object], one_pass: Callable[[], int]) -> float:
    """Seconds of a step, on rank 0 without the others; `key` is all that makes it what it is."""
    return ranks.on_rank_0(_known, key, one_pass)


def _known(key: Sequence[object], one_pass: Callable[[], int]) -> float:
    machine = (
        torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(),
    )  # fmt: skip
    cached = files.cache_dir() / f"pace-{files.fingerprint(machine, list(key))}"

    def make(tmp: Path) -> None:
        (tmp / FILE).write_text(json.dumps({"seconds": measure(one_pass)}), encoding="utf-8")

    try:
        store.build_once(cached, make, _read)
        return _read(cached)
    except OSError as error:  # a run can do without the cache once its data are there
        log.warning(f"{error}; measuring a step each time")
        return measure(one_pass)


def _read(folder: Path) -> float:
    path = folder / FILE
    seconds = files.read_record(path, dict[str, float]).get("seconds", math.nan)
    if not 0 <= seconds < math.inf:
        raise DamagedError(f"{path} is not what was written: seconds is {seconds}")
    return seconds


def measure(one_pass: Callable[[], int]) -> float:
    """Seconds of a step by the fastest of a few passes.

    The clock counts this thread's own work, as it waits for the other threads of a product: other
    processes make it only a little longer.
    """
    seconds: list[float] = []
    while len(seconds) < PASSES and sum(seconds) < ENOUGH:
        start = time.thread_time()
        n_passes = one_pass()
        seconds.append((time.thread_time() - start) * n_passes)
    return min(seconds[1:] or seconds)
