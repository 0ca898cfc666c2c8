"""What the same bits on any number of processes cost: a step with train.parts beside one without.

    python experiments/benchmarks/parts/bench.py [--tiny]

First the default model, with dropout, takes 8 steps with train.parts=8 on 1, 2, 4 and 8 processes:
the weights must be the same to the last bit. Then both kinds of step are timed in turns, in the
same processes; medians of the turns, of wall-clock time and of the CPU seconds of all processes
together. The machine should be idle; the load average beside each row says how busy it was. Fills
results.csv and the README's table, row by row. With `--tiny` one tiny case is measured and nothing
written: that shows that the script runs.
"""

import csv
import hashlib
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path

from lm.launch import compose, processes

HERE = Path(__file__).parent
TINY = "--tiny" in sys.argv
TURNS, STEPS = (1, 1) if TINY else (7, 2)
# Windows of 128 tokens in a batch, its parts, and train.compile.
CASES = [(8, 2, "off"), (8, 8, "off"), (32, 8, "off"), (64, 8, "off"), (32, 8, "on")]
PROCESSES = [(1, 1), (2, 1)]  # processes, and threads of each
if TINY:
    CASES = [(8, 8, "off")]
V = 1024
FIELDS = ("windows", "parts", "processes", "threads", "compile", "ms", "ms in parts", "cpu ms",
          "cpu ms in parts", "load")  # fmt: skip


def update(words: list[str]):
    """An update of the default model, in one of several processes or alone; all weights alike."""
    import numpy as np
    import torch

    from lm.data.batches import Batches
    from lm.system import devices, ranks
    from lm.update import Update

    cfg = compose.compose_run(words)
    devices.configure(cfg.train.n_threads(), cfg.train.deterministic)
    cpu = torch.device("cpu")
    torch.manual_seed(0)
    model = cfg.model.build(V)
    dtype = devices.matmul_dtype("auto", cpu, model.low_precision)
    ids = np.random.default_rng(0).integers(0, V, 1 << 18).astype(np.uint16)
    share = ranks.rank(), ranks.n_proc()
    batches = Batches(ids, cfg.train.batch_size, cfg.model.context_len, 0, *share)
    made = Update(model, cfg.optimizer.build(model, dtype), batches, cfg, cpu, dtype)
    if cfg.train.compile == "on":
        made.compile()
    return made


def weights_after(words: list[str]) -> str:
    """The SHA-256 of all weights after 8 steps, in one of several processes."""
    made = update(words)
    for number in range(8):
        made.step(number)
    digest = hashlib.sha256()
    for p in made.model.parameters():
        digest.update(p.detach().numpy().tobytes())
    return digest.hexdigest()


def timed(words: list[str], n_parts: int) -> list[float]:
    """Medians over the turns, in milliseconds a step: wall clock without parts and with, and the
    CPU time of all processes without and with."""
    import torch

    from lm.system import ranks

    sides = [update(words), update([*words, f"train.parts={n_parts}"])]
    found: list[list[list[float]]] = [[[], []], [[], []]]
    for turn in range(TURNS + 1):  # the first warms up
        for side, made in enumerate(sides):
            ranks.largest(0.0)  # all begin together
            wall = time.perf_counter()
            cpu = time.process_time()
            for number in range(STEPS):
                made.step(number)
            spent = torch.tensor(time.process_time() - cpu, dtype=torch.float64)
            (longest,) = ranks.largest(time.perf_counter() - wall)
            together = ranks.total(spent).item()
            if turn or TINY:
                found[0][side].append(longest)
                found[1][side].append(together)
    return [1000 * statistics.median(t) / STEPS for clock in found for t in clock]


def measure(windows: int, n_parts: int, n_proc: int, threads: int, compiled: str) -> dict:
    words = ["track=off", f"train.batch_size={windows}", f"train.n_proc={n_proc}"]
    words += [f"train.threads={threads}", f"train.compile={compiled}"]
    if TINY:
        words += ["model.n_layer=1", "model.n_embd=16", "model.context_len=16"]
    before = os.getloadavg()[0]
    numbers = processes.spawn(timed, compose.compose_run(words).train, words, n_parts)
    load = (before + os.getloadavg()[0]) / 2
    numbers = [round(n, 1) for n in (*numbers, load)]
    row = (windows, n_parts, n_proc, threads, compiled, *numbers)
    return dict(zip(FIELDS, row, strict=True))


def line(row: dict) -> str:
    """A row of the README's table."""
    wall = row["ms in parts"] / row["ms"] - 1
    cpu = row["cpu ms in parts"] / row["cpu ms"] - 1
    tokens = row["windows"] * 128 // row["parts"]
    how = f"{row['processes']} x {row['threads']}"
    compiled = "yes" if row["compile"] == "on" else "no"
    return (
        f"| {row['windows']} x 128 | {row['parts']} of {tokens:,} | {how} | {compiled} "
        f"| {row['ms']} | {row['ms in parts']} | {wall:+.0%} | {cpu:+.0%} | {row['load']} |"
    )


def write(same: str, rows: list[dict]) -> None:
    import torch

    with open(HERE / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    versions = f"Python {platform.python_version()}, PyTorch {torch.__version__.split('+')[0]}"
    text = [
        f"{os.cpu_count()} cores, {versions}. {same}",
        "",
        "| batch | parts, tokens | processes x threads | compiled | ms/step | in parts | cost "
        "| cost in CPU time | load |",
        "|---|---|---|---|--:|--:|--:|--:|--:|",
        *map(line, rows),
    ]
    block = "<!-- results -->\n" + "\n".join(text) + "\n<!-- /results -->"
    readme = HERE / "README.md"
    page = readme.read_text(encoding="utf-8")
    page = re.sub("<!-- results -->.*<!-- /results -->", lambda _: block, page, flags=re.S)
    readme.write_text(page, encoding="utf-8")


def main() -> None:
    digests = {}
    for n_proc in (1, 2) if TINY else (1, 2, 4, 8):
        words = ["track=off", "train.parts=8", "model.dropout=0.1", f"train.n_proc={n_proc}"]
        train = compose.compose_run(words).train
        digests[n_proc] = processes.spawn(weights_after, train, words)
    counts = ", ".join(map(str, digests))
    if len(set(digests.values())) > 1:
        raise SystemExit(f"the weights differ on {counts} processes: {digests}")
    same = f"After 8 steps of 8 parts the weights are the same on {counts} processes."
    print(same)
    rows = []
    for windows, n_parts, compiled in CASES:
        for n_proc, threads in PROCESSES:
            rows.append(measure(windows, n_parts, n_proc, threads, compiled))
            print(line(rows[-1]), flush=True)
            if not TINY:
                write(same, rows)


if __name__ == "__main__":
    main()
