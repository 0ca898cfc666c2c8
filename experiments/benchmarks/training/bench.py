"""Training steps per second of lm beside transformers' GPT-2 and Llama, and nanoGPT if it is there.

    python experiments/benchmarks/training/bench.py [NANOGPT_FOLDER] [--tiny]

Every side is a process of its own that makes the same step: batch, forward, loss, backward, clip to
norm 1, AdamW. lm runs as `python -m lm.train` would (bfloat16 where the device has it, compiled),
the others as their own training loops do: on a CPU float32, eager, the loss read at each step; on a
GPU bfloat16 by autocast, compiled, fused AdamW, and nothing read. Only one process computes at a
time, in turns, and the median of its turns counts; `ready` is with nothing compiled before. On a
GPU, lm's steps are first compared with those of the CPU. Writes its block of README.md after each
size: one block for CPUs, one for GPUs. With `--tiny` one tiny size is measured, on a CPU without
compiling, and nothing is written: that shows that the script runs.
"""

import csv
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
TINY = "--tiny" in sys.argv
WORDS = [word for word in sys.argv[1:] if word != "--tiny"]
TURNS, STEPS = (1, 1) if TINY else (5, 12)
Case = tuple[int, int, int, int, int]  # layers and heads, width, windows, context, vocabulary
CASES: dict[str, list[Case]] = {
    "cpu": [(4, 128, 12, 64, 65), (4, 128, 48, 64, 65), (4, 128, 16, 128, 1024),
            (4, 128, 8, 256, 1024)],
    "cuda": [(12, 768, 16, 1024, 50304), (6, 384, 64, 256, 65)],
}  # fmt: skip
if TINY:
    CASES = {"cpu": [(1, 8, 2, 8, 65)], "cuda": [(1, 64, 2, 8, 65)]}
GPT2 = {"positions": "learned", "norm": "layernorm", "activation": "gelu", "qk_norm": False}
LLAMA = {"activation": "swiglu", "qk_norm": False, "tie": False}
PEERS = ("transformers GPT-2", "transformers Llama", "nanoGPT")
SIDES = {
    "cpu": ("lm default", "lm gpt2", "lm gpt2, not compiled", "lm gpt2, not compiled, float32",
            "lm llama", *PEERS),
    "cuda": ("lm default", "lm gpt2", "lm gpt2, CUDA graphs", "lm gpt2, not compiled", *PEERS),
}  # fmt: skip
if TINY:
    SIDES["cpu"] = ("lm gpt2, not compiled", *PEERS)


def ours(case: Case, options: dict, compiled: str, device: str, exact: bool = False):
    """A step of lm's own Update, with what lm.train chooses on this machine."""
    import numpy as np
    import torch

    from lm import config, update
    from lm.data.batches import Batches
    from lm.system import devices

    n_layer, n_embd, B, T, V = case
    devices.configure(0, device == "cpu")  # as conf/train/default.yaml and gpu.yaml
    size = {"n_layer": n_layer, "n_head": n_layer, "n_embd": n_embd, "context_len": T}
    parts = {
        "corpus": {"name": "pydocs"}, "tokenizer": {"name": "byte"}, "optimizer": {"name": "adamw"},
        "schedule": {"name": "constant"}, "track": {},
        "train": {"batch_size": B, "compile": compiled},
        "model": {"name": "transformer", **size, **options},
    }  # fmt: skip
    cfg = config.load(parts)
    where = torch.device(device)
    torch.manual_seed(0)
    model = cfg.model.build(V).to(where)
    number = torch.float32 if exact else devices.matmul_dtype("auto", where, model.low_precision)
    ids = np.random.default_rng(0).integers(0, V, 1 << 18).astype(np.uint16)
    batches = Batches(ids, B, T, seed=0).to(where)
    optimizers = cfg.optimizer.build(model, number)
    made = update.Update(model, optimizers, batches, cfg, where, number)
    if compiled != "off":
        made.compile()
    return made.step


def check(device: str) -> list[str]:
    """lm's losses on the device beside the CPU's in float32; a line for each way to run it."""
    case, said = (4, 128, 4, 64, 65), []
    plain = ours(case, GPT2, "off", "cpu", exact=True)
    want = [plain(i)["loss"].item() for i in range(5)]
    for compiled, exact, allowed in (("off", True, 1e-3), ("off", False, 2e-2),
                                     ("on", False, 2e-2), ("graphs", False, 2e-2)):  # fmt: skip
        step = ours(case, GPT2, compiled, device, exact)
        off = max(abs(step(i)["loss"].item() - loss) for i, loss in enumerate(want))
        kind = "float32" if exact else "bfloat16"
        told = f"train.compile={compiled}, {kind}: losses of 5 steps within {off:.1e} of the CPU's"
        if off > allowed:
            raise SystemExit(f"{told}, allowed is {allowed:.0e}")
        said.append(told)
    return said


def theirs(case: Case, model, loss_of, device: str):
    """The plain training loop of a peer."""
    import torch

    _, _, B, T, V = case
    gpu = device == "cuda"
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(V, (1 << 18,), generator=draw)
    optimizer = torch.optim.AdamW(model.to(device).parameters(), 1e-3, (0.9, 0.99), fused=gpu)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if gpu:
        model.compile()

    def step(_: int) -> None:
        starts = torch.randint(len(ids) - T, (B,), generator=draw)
        x = torch.stack([ids[i : i + T] for i in starts])
        y = torch.stack([ids[i + 1 : i + 1 + T] for i in starts])
        if gpu:
            x, y = (t.pin_memory().to(device, non_blocking=True) for t in (x, y))
        with torch.autocast(device, torch.bfloat16, enabled=gpu):
            loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if not gpu:
            loss.item()

    return step


def transformers_step(case: Case, name: str, device: str):
    import torch.nn.functional as F
    import transformers

    n_layer, n_embd, _, T, V = case
    ends = {"bos_token_id": None, "eos_token_id": None}
    if name == "GPT-2":
        size = {"n_positions": T, "n_embd": n_embd, "n_layer": n_layer, "n_head": n_layer}
        drop = {"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=V, **size, **drop, **ends)
        )
    else:
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=V, hidden_size=n_embd, num_hidden_layers=n_layer,
                num_attention_heads=n_layer, intermediate_size=-(-n_embd // 3) * 8,
                max_position_embeddings=T, **ends,
            )
        )  # fmt: skip
    model.train()

    def loss_of(x, y):
        return F.cross_entropy(model(x).logits.flatten(0, 1), y.flatten())

    return theirs(case, model, loss_of, device)


def nanogpt_step(case: Case, folder: str, device: str):
    sys.path.insert(0, folder)
    from model import GPT, GPTConfig

    n_layer, n_embd, _, T, V = case
    size = {"n_layer": n_layer, "n_head": n_layer, "n_embd": n_embd}
    model = GPT(GPTConfig(block_size=T, vocab_size=V, dropout=0.0, bias=False, **size))
    return theirs(case, model, lambda x, y: model(x, y)[1], device)


def worker(side: str, case: Case, device: str, nanogpt: str) -> None:
    """Get ready, say so; then, for each line read, make STEPS steps and print ms per step."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    start = time.perf_counter()
    if side.startswith("lm"):
        options = {"lm default": {}, "lm llama": LLAMA}.get(side, GPT2)
        compiled = "off" if "not" in side else "graphs" if "graphs" in side else "on"
        step = ours(case, options, compiled, device, exact="float32" in side)
    elif side == "nanoGPT":
        step = nanogpt_step(case, nanogpt, device)
    else:
        step = transformers_step(case, side.removeprefix("transformers "), device)
    for i in range(3):
        step(i)
    wait()
    print(f"{time.perf_counter() - start:.1f}", flush=True)
    for i, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        for j in range(STEPS):
            step(3 + i * STEPS + j)
        wait()
        print((time.perf_counter() - start) / STEPS * 1e3, flush=True)


def measure(case: Case, sides: list[str], device: str, nanogpt: str) -> list[dict]:
    command = [sys.executable, __file__, *(["--tiny"] if TINY else [])]
    command += ["worker", ",".join(map(str, case)), device, nanogpt]
    workers, ready, turns = {}, {}, {side: [] for side in sides}
    for side in sides:
        with tempfile.TemporaryDirectory() as cache:  # nothing compiled before
            new = {"PYTHONUNBUFFERED": "1", "TORCHINDUCTOR_CACHE_DIR": cache}
            workers[side] = subprocess.Popen(
                [*command, side], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                stderr=subprocess.DEVNULL, env={**os.environ, **new},
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
    n_layer, n_embd, B, T, V = case
    model = f", {n_layer} layers of {n_embd}" if device == "cuda" else ""
    return [
        {
            "case": f"{B} x {T}, vocabulary {V:,}{model}", "side": side, "ready_s": ready[side],
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


def mfu(rows: list[dict], case: Case) -> str:
    """The share of the GPU's bfloat16 rate that lm's GPT-2 uses."""
    import torch

    from lm.system import devices

    n_layer, n_embd, _, T, V = case
    flops = 6 * (12 * n_layer * n_embd**2 + V * n_embd) + 12 * n_layer * n_embd * T  # a token
    peak = devices.peak_flops(torch.device("cuda"))
    if not peak:
        return "The peak rate of this GPU is not known, so neither is the share of it that is used."
    used = {r["side"]: r["tokens_per_s"] * flops / peak for r in rows if "gpt2" in r["side"]}
    return "MFU: " + ", ".join(f"{side} {share:.0%}" for side, share in used.items()) + "."


def machine(device: str) -> str:
    import torch
    import transformers

    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    name = model[1] if model else platform.processor()
    if device == "cuda":
        name = f"{torch.cuda.get_device_name()}, {name}"
    versions = f"PyTorch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def main(nanogpt: str) -> None:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sides = [s for s in SIDES[device] if s != "nanoGPT" or nanogpt]
    notes = check(device) if device == "cuda" else []
    rows: list[dict] = []
    for case in CASES[device]:
        rows += (new := measure(case, sides, device, nanogpt))
        if device == "cuda":
            notes.append(f"{new[0]['case']}: {mfu(new, case)}")
        write(rows, notes, device)


def write(rows: list[dict], notes: list[str], device: str) -> None:
    """Print what was measured so far; results.csv and the README's block hold it too."""
    mark, name = ("results", "results.csv") if device == "cpu" else ("gpu", "results_gpu.csv")
    text = "\n\n".join([machine(device), table(rows), *notes])
    block = f"<!-- {mark} -->\n{text}\n<!-- /{mark} -->"
    print(block, flush=True)
    if TINY:
        return
    with open(HERE / name, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    page = (HERE / "README.md").read_text()
    page = re.sub(rf"<!-- {mark} -->.*<!-- /{mark} -->", lambda _: block, page, flags=re.S)
    (HERE / "README.md").write_text(page)


if __name__ == "__main__":
    if WORDS[:1] == ["worker"]:
        worker(WORDS[4], tuple(map(int, WORDS[1].split(","))), *WORDS[2:4])
    else:
        main(WORDS[0] if WORDS else "")
