"""Training steps per second of lm beside transformers' GPT-2 and Llama, and nanoGPT if it is there.

    python experiments/benchmarks/training/bench.py [NANOGPT_FOLDER]

Every side is a process of its own that makes the same step: batch, forward, loss, backward, clip to
norm 1, AdamW, and reads the loss. lm runs as `python -m lm.train` would (bfloat16 where the CPU has
it, compiled), the others as their own training loops do on a CPU (float32, eager). Only one process
computes at a time, in turns, and the median of its turns counts. Writes README.md's table.
"""

import csv
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
N_LAYER, N_HEAD, N_EMBD = 4, 4, 128
CASES = [(12, 64, 65), (48, 64, 65), (16, 128, 1024), (8, 256, 1024)]
TURNS, STEPS = 5, 12
GPT2 = {"positions": "learned", "norm": "layernorm", "activation": "gelu", "qk_norm": False}
LLAMA = {"activation": "swiglu", "qk_norm": False, "tie": False}
SIDES = (
    "lm default",
    "lm gpt2",
    "lm gpt2, not compiled",
    "lm llama",
    "transformers GPT-2",
    "transformers Llama",
    "nanoGPT",
)


def ours(case: tuple[int, int, int], options: dict, compiled: bool):
    """A step of lm's own Update, with what lm.train chooses on this machine."""
    import numpy as np
    import torch

    from lm import config, data, runtime, update

    B, T, V = case
    runtime.configure(0, True)
    parts = {
        "corpus": {"name": "pydocs"}, "tokenizer": {"name": "byte"}, "optimizer": {"name": "adamw"},
        "schedule": {"name": "constant"}, "track": {}, "train": {"batch_size": B},
        "model": {"name": "transformer", "context_len": T, **options},
    }  # fmt: skip
    cfg = config.load(parts)
    where = torch.device("cpu")
    model = cfg.model.build(V)
    number = runtime.dtype("auto", where, model.low_precision)
    ids = np.random.default_rng(0).integers(0, V, 1 << 18).astype(np.uint16)
    batches = data.Batches(ids, B, T, seed=0)
    step = update.Update(model, cfg.optimizer.build(model), batches, cfg, where, number)
    if compiled:
        step.compile()
    return step


def theirs(case: tuple[int, int, int], model, loss_of):
    """The plain training loop of a peer: float32, PyTorch's default AdamW."""
    import torch

    B, T, V = case
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(V, (1 << 18,), generator=draw)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, (0.9, 0.99))

    def step(_: int) -> None:
        starts = torch.randint(len(ids) - T, (B,), generator=draw)
        x = torch.stack([ids[i : i + T] for i in starts])
        y = torch.stack([ids[i + 1 : i + 1 + T] for i in starts])
        loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def transformers_step(case: tuple[int, int, int], name: str):
    import torch.nn.functional as F
    import transformers

    _, T, V = case
    ends = {"bos_token_id": None, "eos_token_id": None}
    if name == "GPT-2":
        size = {"n_positions": T, "n_embd": N_EMBD, "n_layer": N_LAYER, "n_head": N_HEAD}
        drop = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=V, **size, **drop, **ends)
        )
    else:
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=V, hidden_size=N_EMBD, num_hidden_layers=N_LAYER,
                num_attention_heads=N_HEAD, intermediate_size=-(-N_EMBD // 3) * 8,
                max_position_embeddings=T, **ends,
            )
        )  # fmt: skip
    model.train()
    return theirs(
        case, model, lambda x, y: F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())
    )


def nanogpt_step(case: tuple[int, int, int], folder: str):
    sys.path.insert(0, folder)
    from model import GPT, GPTConfig

    _, T, V = case
    size = {"n_layer": N_LAYER, "n_head": N_HEAD, "n_embd": N_EMBD}
    model = GPT(GPTConfig(block_size=T, vocab_size=V, dropout=0.0, bias=False, **size))
    return theirs(case, model, lambda x, y: model(x, y)[1])


def worker(side: str, case: tuple[int, int, int], nanogpt: str) -> None:
    """Get ready, say so; then, for each line read, make STEPS steps and print ms per step."""
    start = time.perf_counter()
    if side.startswith("lm"):
        options = {"lm default": {}, "lm llama": LLAMA}.get(side, GPT2)
        step = ours(case, options, "not" not in side)
    elif side == "nanoGPT":
        step = nanogpt_step(case, nanogpt)
    else:
        step = transformers_step(case, side.removeprefix("transformers "))
    for i in range(3):
        step(i)
    print(f"{time.perf_counter() - start:.1f}", flush=True)
    for i, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        for j in range(STEPS):
            step(3 + i * STEPS + j)
        print((time.perf_counter() - start) / STEPS * 1e3, flush=True)


def measure(case: tuple[int, int, int], nanogpt: str) -> list[dict]:
    sides = [s for s in SIDES if s != "nanoGPT" or nanogpt]
    command = [sys.executable, __file__, "worker", ",".join(map(str, case)), nanogpt]
    workers, ready, turns = {}, {}, {side: [] for side in sides}
    for side in sides:
        workers[side] = subprocess.Popen(
            [*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        # Its own prints may come first: nanoGPT's constructor tells the number of parameters.
        ready[side] = next(float(x) for x in workers[side].stdout if re.match(r"[\d.]+$", x))
    for _ in range(TURNS):
        for side, process in workers.items():
            process.stdin.write("go\n")
            process.stdin.flush()
            turns[side].append(float(process.stdout.readline()))
    for process in workers.values():
        process.stdin.close()
        process.wait()
    B, T, V = case
    return [
        {
            "case": f"{B} x {T}, vocabulary {V:,}", "side": side, "ready_s": ready[side],
            "ms_per_step": round(statistics.median(times), 2),
            "tokens_per_s": round(B * T / statistics.median(times) * 1e3),
        }
        for side, times in turns.items()
    ]  # fmt: skip


def table(rows: list[dict]) -> str:
    """Tokens/s of each side; and how many times the peer's time is ours."""
    lines = [
        "| batch | side | ms/step | tokens/s | ready after, s | x GPT-2 | x Llama | x nanoGPT |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        same = {r["side"]: r["ms_per_step"] for r in rows if r["case"] == row["case"]}
        ratios = [
            f"{same[peer] / row['ms_per_step']:.2f}" if peer in same else ""
            for peer in ("transformers GPT-2", "transformers Llama", "nanoGPT")
        ]
        cells = [row["case"], row["side"], row["ms_per_step"], f"{row['tokens_per_s']:,}"]
        lines.append("| " + " | ".join(map(str, [*cells, row["ready_s"], *ratios])) + " |")
    return "\n".join(lines)


def machine() -> str:
    import torch
    import transformers

    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = model[1] if model else platform.processor()
    versions = f"PyTorch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def main(nanogpt: str) -> None:
    rows = [row for case in CASES for row in measure(case, nanogpt)]
    with open(HERE / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    page = (HERE / "README.md").read_text()
    block = f"<!-- results -->\n{machine()}\n\n{table(rows)}\n<!-- /results -->"
    page = re.sub(r"<!-- results -->.*<!-- /results -->", lambda _: block, page, flags=re.S)
    (HERE / "README.md").write_text(page)
    print(block)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[4], tuple(map(int, sys.argv[2].split(","))), sys.argv[3])
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "")
