"""What training costs as it grows, and what a run costs besides its steps.

    python experiments/benchmarks/growth/bench.py                  # all parts
    python experiments/benchmarks/growth/bench.py training   # or vocabulary, start, logging

training: tokens a second and peak memory against context and model size, each in a process of its
own. vocabulary: seconds and peak memory of a step with the logits of all tokens at once, and in
pieces. start: seconds from the command to the first step. logging: its share of steps of 1 ms.
Fills results.csv, the README's tables and growth.svg; parts not named keep their rows.
"""

import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TOKENS = 4096  # in a step, at every context
CONTEXTS = (64, 128, 256, 512, 1024, 2048)  # at 0.8M
SIZES = {"0.1M": (2, 64), "0.2M": (4, 64), "0.8M": (4, 128), "3.2M": (4, 256), "11M": (6, 384),
         "28M": (9, 512)}  # layers, width; at a context of 256  # fmt: skip
V, REPEATS = 256, 3
VOCABULARIES = (1024, 8192, 50_257)  # tokens; at 0.8M without embeddings and a context of 256


def train(n_layer: int, n_embd: int, context_len: int) -> dict:
    """Median time of a step and the peak of resident memory, in this process."""
    empty = imported()
    model, update = make(n_layer, n_embd, context_len, V)
    rate = TOKENS / seconds_a_step(update, time.perf_counter)
    return {
        "tokens_per_s": round(rate),
        "gflop_per_s": round(rate * model.flops_per_token() / 1e9, 1),
        "peak_mb": round(megabytes() - empty),
    }


def train_with_vocabulary(vocab_size: int, in_pieces: bool) -> dict:
    """Processor seconds of a step and the peak of resident memory, in float32 on one thread."""
    empty = imported()
    from lm.models import head_loss

    least = 0 if in_pieces else sys.maxsize
    head_loss.CPU = head_loss.CPU._replace(least=least)
    _, update = make(*SIZES["0.8M"], 256, vocab_size, threads=1, dtype="float32")
    seconds = seconds_a_step(update, time.process_time)
    return {"cpu_seconds": round(seconds, 2), "peak_mb": round(megabytes() - empty)}


def imported() -> float:
    """The peak of resident memory once all that training needs is imported."""
    import lm.update  # noqa: F401

    return megabytes()


def make(n_layer: int, n_embd: int, context_len: int, vocab_size: int, **settings):
    """A transformer and its update; `settings` are those of train."""
    import numpy as np
    import torch

    from lm import config
    from lm.data.batches import Batches
    from lm.system import devices
    from lm.update import Update

    cfg = config.Config(
        corpus=config.PydocsConfig(), tokenizer=config.ByteConfig(),
        optimizer=config.AdamWConfig(), schedule=config.ConstantConfig(),
        model=config.TransformerConfig(
            n_layer=n_layer, n_embd=n_embd, n_head=n_embd // 32, context_len=context_len
        ),
        train=config.TrainConfig(batch_size=TOKENS // context_len, **settings),
    )  # fmt: skip
    devices.configure(cfg.train.threads, cfg.train.deterministic)
    where = torch.device("cpu")
    model = cfg.model.build(vocab_size)
    number = devices.matmul_dtype(cfg.train.dtype, where, model.low_precision)
    ids = np.random.default_rng(0).integers(0, vocab_size, 1 << 20).astype(np.uint16)
    batches = Batches(ids, cfg.train.batch_size, context_len, 0)
    return model, Update(model, cfg.optimizer.build(model), batches, cfg, where, number)


def seconds_a_step(update, clock) -> float:
    """The median over some steps, after a first one."""
    update.step(0)
    seconds: list[float] = []
    while len(seconds) < REPEATS or (sum(seconds) < 2 and len(seconds) < 20):
        start = clock()
        update.step(len(seconds) + 1)
        seconds.append(clock() - start)
    return statistics.median(seconds)


def megabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; bytes on a Mac
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def training() -> list[dict]:
    points = [("context", "0.8M", c) for c in CONTEXTS] + [("size", s, 256) for s in SIZES]
    rows = []
    for series, size, context_len in points:
        rows.append({"part": series, "what": size, "context": context_len})
        rows[-1] |= in_own_process("train", *SIZES[size], context_len)
        print(*rows[-1].values(), flush=True)
    return rows


def vocabulary() -> list[dict]:
    rows = []
    for vocab_size, in_pieces in itertools.product(VOCABULARIES, (False, True)):
        logits = "in pieces" if in_pieces else "all at once"
        rows.append({"part": "vocabulary", "what": f"{vocab_size:,}", "logits": logits})
        rows[-1] |= in_own_process("train_with_vocabulary", vocab_size, int(in_pieces))
        print(*rows[-1].values(), flush=True)
    return rows


def in_own_process(function: str, *numbers: int) -> dict:
    """What a function of this file returns, called in a process of its own."""
    words = [sys.executable, __file__, "call", function, *map(str, numbers)]
    found = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def start() -> list[dict]:
    """From the command until its first training loss stands in metrics.jsonl; then it is ended."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("off", "offline"):
            seconds = []
            for i in range(1 + REPEATS):  # the first builds corpus and tokenizer
                out = Path(folder) / f"{mode}{i}"
                words = ["train.steps=50", "train.log_every=1", f"track={mode}"]
                begin = time.perf_counter()
                run = subprocess.Popen(
                    [sys.executable, "-m", "lm.train", *words, f"hydra.run.dir={out}"],
                    cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                curve = out / "metrics.jsonl"
                while not (curve.exists() and "train/loss" in curve.read_text("utf-8")):
                    if run.poll() is not None:
                        raise SystemExit(f"lm.train {' '.join(words)} ended with {run.returncode}")
                    time.sleep(0.01)
                seconds.append(time.perf_counter() - begin)
                run.terminate()
                run.wait()
            middle = round(statistics.median(seconds[1:]), 2)
            rows.append({"part": "start", "what": f"track={mode}", "seconds": middle})
            print(*rows[-1].values(), flush=True)
    return rows


def logging() -> list[dict]:
    """The mean over a run of 10,000 steps of 1 ms that logs every tenth, as by default, or each."""
    import torch

    from lm.launch import compose
    from lm.record import tracker
    from lm.record.state import TrainState

    rows, n, a = [], 10_000, torch.zeros(128, 128)
    values = {
        "train/loss": 4.123456, "epoch": 0.1, "optim/lr": 1e-3, "optim/grad_norm": 1.23456,
        "speed/tokens_per_s": 123456.7,
    }  # fmt: skip
    for mode, every in itertools.product(("off", "offline"), (10, 1)):
        cfg = compose.compose_run([f"track={mode}"])
        spent, state = 0.0, TrainState()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)  # W&B's files too
            tracker = tracker.Tracker(Path(folder), cfg, state, lambda _: 0.5)
            begin = time.perf_counter()  # a run's first point is that before its first step
            tracker.log(state, {"val/loss": 6.123456, "val/ppl": 456.7, "val/bpb": 3.4567})
            first = time.perf_counter() - begin
            for state.step in range(n):
                due = time.perf_counter() + 1e-3
                while time.perf_counter() < due:
                    torch.mm(a, a)  # lets W&B's threads run, as the operations of a step do
                begin = time.perf_counter()
                if state.step % every == 0:
                    tracker.log(state, values)
                spent += time.perf_counter() - begin
            tracker.__exit__(None, None, None)
        os.chdir(HERE)
        share = round(100 * spent / n / 1e-3, 2)
        row = {"part": "logging", "what": f"track={mode} train.log_every={every}"}
        rows.append(row | {"percent_of_1_ms": share, "seconds": round(first, 3)})
        print(*rows[-1].values(), flush=True)
    return rows


PARTS = {"training": training, "vocabulary": vocabulary, "start": start, "logging": logging}


def main(words: list[str]) -> None:
    if words[:1] == ["call"]:
        print(json.dumps(globals()[words[1]](*map(int, words[2:]))))
        return
    rows = []
    for name in words or PARTS:
        rows += PARTS[name]()
    import report

    report.write(HERE, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
