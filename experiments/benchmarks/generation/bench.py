"""Tokens per second of lm's cached generation against transformers' `generate` with its cache.

    python experiments/benchmarks/generation/bench.py

GPT-2's architecture at the same sizes with random weights, sampled text, alternating runs in one
process, medians. Also lm without its cache, and lm's default architecture. Writes results.csv.
"""

import csv
import statistics
import time
from pathlib import Path

import torch
import transformers

from lm.config import TransformerConfig
from lm.generate import generate, sample

SIZES = {  # name: (n_layer, n_head, n_embd, context_len, vocab_size)
    "0.8M": (4, 4, 128, 64, 65),
    "0.9M": (4, 4, 128, 256, 1024),
    "11M": (6, 6, 384, 256, 1024),
}
PROMPT, REPEATS = [1, 2, 3, 4], 5


def gpt2(size: tuple) -> TransformerConfig:
    n_layer, n_head, n_embd, context_len, _ = size
    return TransformerConfig(
        n_layer=n_layer, n_head=n_head, n_embd=n_embd, context_len=context_len,
        positions="learned", norm="layernorm", activation="gelu", qk_norm=False, bias=True,
    )  # fmt: skip


def default(size: tuple) -> TransformerConfig:
    n_layer, n_head, n_embd, context_len, _ = size
    return TransformerConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, context_len=context_len)


def with_transformers(size: tuple):
    n_layer, n_head, n_embd, context_len, vocab_size = size
    cfg = transformers.GPT2Config(
        vocab_size=vocab_size, n_positions=context_len, n_embd=n_embd, n_layer=n_layer,
        n_head=n_head, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(cfg).eval()


@torch.inference_mode()
def write_uncached(model, batch_size: int, n: int) -> None:
    ids = torch.tensor([PROMPT] * batch_size)
    for _ in range(n):
        new = sample(model(ids)[:, -1], torch.rand(batch_size))
        ids = torch.cat((ids, new[:, None]), dim=1)


@torch.inference_mode()
def write_transformers(model, batch_size: int, n: int) -> None:
    ids = torch.tensor([PROMPT] * batch_size)
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=True, top_k=0,
        use_cache=True, pad_token_id=0,
    )  # fmt: skip
    assert out.shape[1] == len(PROMPT) + n


def write_lm(model, batch_size: int, n: int) -> None:
    assert sum(1 for _ in generate(model, [PROMPT] * batch_size, max_tokens=n)) == n


def main() -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    table = []
    for name, size in SIZES.items():
        context_len, vocab_size = size[3:]
        ours = gpt2(size).build(vocab_size).eval()
        peers = {
            "lm": (write_lm, ours),
            "lm default": (write_lm, default(size).build(vocab_size).eval()),
            "lm uncached": (write_uncached, ours),
            "transformers": (write_transformers, with_transformers(size)),
        }
        n = context_len - len(PROMPT)
        for batch_size in (1, 16):
            seconds: dict[str, list[float]] = {peer: [] for peer in peers}
            for repeat in range(REPEATS + 1):  # the first warms up
                for peer, (write, model) in peers.items():
                    if peer == "lm uncached" and batch_size > 1:
                        continue  # minutes
                    start = time.perf_counter()
                    write(model, batch_size, n)
                    if repeat:
                        seconds[peer].append(time.perf_counter() - start)
            rates = {p: batch_size * n / statistics.median(s) for p, s in seconds.items() if s}
            for peer, rate in rates.items():
                ratio = round(rate / rates["transformers"], 2)
                spread = round(max(seconds[peer]) / min(seconds[peer]), 2)
                row = {
                    "model": name, "context": context_len, "batch": batch_size, "peer": peer,
                    "tokens_per_s": round(rate), "slowest_to_fastest": spread,
                    "to_transformers": ratio,
                }  # fmt: skip
                table.append(row)
                print("| " + " | ".join(str(v) for v in row.values()) + " |", flush=True)
    with open(Path(__file__).with_name("results.csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
