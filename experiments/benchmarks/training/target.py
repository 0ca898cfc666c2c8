"""Seconds from the start of the process to nanoGPT's result on shakespeare, in nats a character:
1.8857 on a CPU, 1.4697 on a GPU.

    LM_DATA_DIR=... python experiments/benchmarks/training/target.py NANOGPT_FOLDER [--tiny]

nanoGPT runs its README's recipe for the device; lm runs the command below, with an empty cache, and
is scored on the whole validation split. In turns, each with a seed of its own; medians. Writes its
block of README.md. On a GPU one turn must do, as nanoGPT takes minutes. With `--tiny` both train
two steps and nothing is written.
"""

import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TINY = "--tiny" in sys.argv
TURNS = {"cpu": 3, "cuda": 1}
GOAL = {"cpu": 1.8857, "cuda": 1.4697}
ALL = "corpus=shakespeare optimizer=muon schedule=wsd track=off train.sample_every=0 "
OURS = {
    "cpu": ALL + "tokenizer=char model.context_len=64 train.batch_size=16 train.steps=200 "
    "optimizer.momentum=0.8 optimizer.adamw_lr=0.01 schedule.warmup=0.05 "
    "train.eval_every=0 train.save_every=0",
    # The arm of 002_ten_minutes that reaches 1.4544 on a CPU.
    "cuda": ALL + "train=gpu model.n_layer=6 model.n_head=6 model.n_embd=192 model.dropout=0.15 "
    "train.batch_size=32 train.steps=1500 train.eval_every=300 train.save_every=0",
}
THEIRS = {
    "cpu": "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 "
    "--log_interval=1000 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 "
    "--max_iters=2000 --lr_decay_iters=2000 --dropout=0.0",
    "cuda": "config/train_shakespeare_char.py",
}


if TINY:
    TURNS = {"cpu": 1, "cuda": 1}
    OURS = {device: f"{words} train.steps=2 model.n_embd=48" for device, words in OURS.items()}
    tiny = "--max_iters=2 --eval_interval=1 --eval_iters=1 --n_embd=48"
    THEIRS = {device: f"{words} {tiny}" for device, words in THEIRS.items()}


def ours(folder: Path, device: str, seed: int) -> tuple[float, float]:
    """Seconds of the whole command, and its best loss; a character is a byte in this text."""
    shutil.rmtree(folder / "outputs", ignore_errors=True)  # corpus, tokenizer and tokens too
    start = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "lm.train",
        *OURS[device].split(),
        f"seed={seed}",
        f"hydra.run.dir={folder}/run",
    ]
    shutil.rmtree(folder / "run", ignore_errors=True)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    summary = json.loads((folder / "run/summary.json").read_text())
    return seconds, math.log(2) * summary["best_val_bpb"]


def theirs(nanogpt: str, folder: Path, device: str) -> tuple[float, float]:
    """Seconds of its train.py, and its own best estimate of the validation loss."""
    data = Path(nanogpt) / "data/shakespeare_char"
    if not (data / "train.bin").exists():
        shutil.copy(Path(os.environ["LM_DATA_DIR"]) / "shakespeare.txt", data / "input.txt")
        subprocess.run([sys.executable, "prepare.py"], cwd=data, check=True, capture_output=True)
    start = time.perf_counter()
    command = [sys.executable, "train.py", *THEIRS[device].split(), f"--out_dir={folder}/nanogpt"]
    done = subprocess.run(command, cwd=nanogpt, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    return seconds, min(map(float, re.findall(r"val loss ([\d.]+)", done.stdout)))


def main(nanogpt: str) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder, goal = Path(tempfile.mkdtemp()), GOAL[device]
    mine, others = [], []
    for seed in range(TURNS[device]):
        mine.append(ours(folder, device, seed))
        others.append(theirs(nanogpt, folder, device))
    rows = ["| side | seconds, start to end | val loss |", "|---|--:|--:|"]
    for name, runs in (("lm", mine), ("nanoGPT", others)):
        seconds, losses = (statistics.median(column) for column in zip(*runs, strict=True))
        rows.append(f"| {name} | {seconds:.1f} | {losses:.4f} |")
    ratio = statistics.median(b[0] / a[0] for a, b in zip(mine, others, strict=True))
    reached = max(loss for _, loss in mine) <= goal
    rows += [
        "",
        f"nanoGPT takes {ratio:.1f} times as long; lm {'reached' if reached else 'missed'}",
    ]
    rows[-1] += f" {goal} in every turn: `python -m lm.train {OURS[device]}`"
    mark = "target" if device == "cpu" else "gpu target"
    block = f"<!-- {mark} -->\n" + "\n".join(rows) + f"\n<!-- /{mark} -->"
    print(block)
    if TINY:
        return
    page = (HERE / "README.md").read_text()
    page = re.sub(rf"<!-- {mark} -->.*<!-- /{mark} -->", lambda _: block, page, flags=re.S)
    (HERE / "README.md").write_text(page)


if __name__ == "__main__":
    main(sys.argv[1])
