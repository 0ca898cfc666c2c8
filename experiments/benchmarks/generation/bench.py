"""Tokens per second of lm's generation against transformers' `generate` with its cache.

    python experiments/benchmarks/generation/bench.py [--tiny]

The same random weights on both sides, sampled text, no end-of-text token, alternating runs in one
process, medians. First both write the same greedy text, or the script stops. Fills results.csv and
the README's table. On a GPU, where there is one: a table of its own, with our compiled step,
batches of 128, and the share of the card's bandwidth that reading the weights once a token takes.
With `--tiny` one tiny model makes a few tokens, and no file changes.
"""

import csv
import functools
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import transformers

from lm.config import TransformerConfig
from lm.generate import generate
from lm.huggingface import config_json, weights

HERE = Path(__file__).parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TINY = "--tiny" in sys.argv
TABLE = "gpu" if DEVICE == "cuda" else "results"
START, END = f"<!-- {TABLE} -->", f"<!-- /{TABLE} -->"
SIZES = {"0.9M": (4, 4, 128), "4.8M": (6, 4, 256), "11M": (6, 6, 384)}  # layers, heads, width
if DEVICE == "cuda":
    SIZES["85M"] = 12, 12, 768
if TINY:
    SIZES = {"tiny": (1, 1, 16)}
BATCHES = (1, 16, 128) if DEVICE == "cuda" else (1, 16)
FAMILIES = {
    "gpt2": {"positions": "learned", "norm": "layernorm", "activation": "gelu", "bias": True},
    "llama": {"positions": "rope", "norm": "rmsnorm", "activation": "swiglu", "tie": False},
}
V, CONTEXT, PROMPT, REPEATS = 1024, 16 if TINY else 256, [1, 2, 3, 4], 1 if TINY else 3
N = CONTEXT - len(PROMPT)


def pair(family: str, size: str):
    """The same model twice: ours, and transformers' class with our weights."""
    n_layer, n_head, n_embd = SIZES[size]
    cfg = TransformerConfig(
        n_layer=n_layer, n_head=n_head, n_embd=n_embd, context_len=CONTEXT, qk_norm=False,
        **FAMILIES[family],
    )  # fmt: skip
    ours = cfg.build(V).eval()
    config = transformers.AutoConfig.for_model(**config_json.to_hf(cfg, V, None))
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    theirs.load_state_dict(weights.to_hf(ours), strict=False)
    theirs.tie_weights()
    return ours.to(DEVICE), theirs.to(DEVICE)


def write_ours(model, batch_size: int, **how) -> list[int]:
    prompts, compiled = [PROMPT] * batch_size, DEVICE == "cuda"
    return [s[0] for s in generate(model, prompts, max_tokens=N, compiled=compiled, **how)]


@torch.inference_mode()
def write_theirs(model, batch_size: int, sample: bool = True) -> list[int]:
    ids = torch.tensor([PROMPT] * batch_size, device=DEVICE)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=N, do_sample=sample,
        top_k=0 if sample else None, use_cache=True, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(PROMPT) :].tolist()


def measure(family: str, size: str, batch_size: int) -> dict:
    ours, theirs = pair(family, size)
    sides = {"lm": (write_ours, ours), "transformers": (write_theirs, theirs)}
    greedy = write_ours(ours, batch_size, temperature=0)
    # A GPU's kernels round differently on the two sides, so that texts part sooner or later.
    n_same = min(8, N) if DEVICE == "cuda" else N
    if greedy[:n_same] != write_theirs(theirs, batch_size, sample=False)[:n_same]:
        raise SystemExit(f"{family} {size}: the two sides do not compute the same")
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(REPEATS):
        for side, (write, model) in sides.items():
            start = time.perf_counter()
            assert len(write(model, batch_size)) == N
            seconds[side].append(time.perf_counter() - start)
    rates = {side: batch_size * N / statistics.median(s) for side, s in seconds.items()}
    ratios = sorted(b / a for a, b in zip(*seconds.values(), strict=True))
    reads = {}
    if DEVICE == "cuda":
        weights_read = sum(p.numel() * p.element_size() for p in ours.parameters())
        reads["of_bandwidth"] = f"{weights_read * rates['lm'] / batch_size / bandwidth():.0%}"
    return {
        "model": family, "size": size, "batch": batch_size,
        **reads,
        **{f"{side}_tokens_per_s": round(rate) for side, rate in rates.items()},
        "ratio": round(rates["lm"] / rates["transformers"], 2),
        "lowest": round(ratios[0], 2), "highest": round(ratios[-1], 2),
    }  # fmt: skip


@functools.cache
def bandwidth() -> float:
    """Bytes a second that the GPU's memory gives: a gigabyte copied, read and written."""
    source = torch.empty(1 << 28, device=DEVICE)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * source.numel() * source.element_size() / min(times)


def machine() -> str:
    if DEVICE == "cuda":
        return torch.cuda.get_device_name()
    found = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        found = next((x.split(": ")[1] for x in lines if x.startswith("model name")), found)
    return f"{found}, {platform.system()}"


def report(rows: list[dict]) -> None:
    """Write results.csv, and the README's block between the marks."""
    with open(HERE / f"{TABLE}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    lines = [
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{torch.get_num_threads()} threads, {machine()}; prompt of "
        f"{len(PROMPT)} tokens, {N} written, vocabulary {V}. Tokens/s, medians of {REPEATS}.",
        "",
        "| model | size | batch | lm | transformers | ratio (lowest, highest) |",
        "|---|---|---|---|---|---|",
    ]
    if DEVICE == "cuda":
        lines[0] += f" Memory gives {bandwidth() / 1e12:.2f} TB/s."
        lines[2] = lines[2].replace("| lm |", "| weights' share of that | lm |")
        lines[3] += "---|"
    for row in rows:
        *cells, ratio, low, high = row.values()
        lines.append(f"| {' | '.join(map(str, cells))} | {ratio} ({low}, {high}) |")
    text = (HERE / "README.md").read_text(encoding="utf-8")
    head, tail = text.split(START)[0], text.split(END)[1]
    block = "\n".join([START, *lines, END])
    (HERE / "README.md").write_text(head + block + tail, encoding="utf-8")


def main() -> None:
    torch.manual_seed(0)
    rows = []
    for family in FAMILIES:
        for size in SIZES:
            for batch_size in BATCHES:
                rows.append(measure(family, size, batch_size))
                print(*rows[-1].values(), flush=True)
    if not TINY:
        report(rows)


if __name__ == "__main__":
    main()
