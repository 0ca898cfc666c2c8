"""How PyTorch's threads should wait for each other: tokens a second alone, and beside others.

    python experiments/benchmarks/training/waiting.py

A step of the default model, not compiled, on two threads; in turns with each way of waiting, while
no, one or two other processes keep a processor busy each. The machine must be idle but for that.
Medians of the turns; writes its block of README.md.
"""

import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
TURNS = 3
SECONDS = 4.0
WAYS: dict[str, dict[str, str]] = {
    "as OpenMP does": {"GOMP_SPINCOUNT": "300000"},  # libgomp's own, if threads fit the processors
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=5000, lm's": {"GOMP_SPINCOUNT": "5000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def measure() -> float:
    """Tokens a second of the default model's update, in this process."""
    import numpy as np
    import torch

    from lm import update
    from lm.data.batches import Batches
    from lm.launch import compose
    from lm.system import devices

    cfg = compose.compose_run(["train.compile=off", "train.threads=2"])
    devices.configure(2, True)
    device = torch.device("cpu")
    model = cfg.model.build(1024)
    dtype = devices.matmul_dtype("auto", device, model.low_precision)
    ids = np.random.default_rng(0).integers(0, 1024, 1 << 18).astype(np.uint16)
    batches = Batches(ids, cfg.train.batch_size, cfg.model.context_len, seed=0)
    made = update.Update(model, cfg.optimizer.build(model, dtype), batches, cfg, device, dtype)
    for number in range(3):
        made.step(number)
    n = 0
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        made.step(n)
        n += 1
    return n * batches.tokens / (time.perf_counter() - start)


def spin() -> None:
    while True:
        pass


def beside(n_others: int, env: dict[str, str]) -> float:
    """What a fresh process measures with this environment, beside so many busy ones."""
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(n_others)]
    for other in others:
        other.start()
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("GOMP", "OMP"))}
    words = [sys.executable, __file__, "--measure"]
    try:
        return float(subprocess.check_output(words, env={**plain, **env}, text=True))
    finally:
        for other in others:
            other.terminate()


def main() -> None:
    if "--measure" in sys.argv:
        print(measure())
        return
    found: dict[str, dict[int, list[float]]] = {way: {0: [], 1: [], 2: []} for way in WAYS}
    for n_others in (0, 1, 2):
        for turn in range(TURNS):
            for way, env in WAYS.items():
                found[way][n_others].append(beside(n_others, env))
                print(f"{n_others} beside, turn {turn + 1}, {way}: {found[way][n_others][-1]:,.0f}")
    lines = ["| threads wait | alone | beside 1 busy process | beside 2 |", "|---|--:|--:|--:|"]
    for way, by_others in found.items():
        medians = [f"{statistics.median(values):,.0f}" for values in by_others.values()]
        lines.append(f"| {way} | {' | '.join(medians)} |")
    block = "<!-- waiting -->\n" + "\n".join(lines) + "\n<!-- /waiting -->"
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    text = re.sub("<!-- waiting -->.*<!-- /waiting -->", lambda _: block, text, flags=re.S)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
