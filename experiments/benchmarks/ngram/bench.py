"""How long the counted models take: counting 1 M tokens, and evaluating windows of them.

    python experiments/benchmarks/ngram/bench.py --text shakespeare.txt

Tokens are the characters of the text where it is given, and Zipf-distributed ones for larger
vocabularies, 1,000,000 each, in memory. Medians. Writes results.csv.
"""

import argparse
import csv
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from lm.config import BigramCountsConfig, NgramConfig

N, REPEATS = 1_000_000, 7


def zipf(vocab_size: int) -> np.ndarray:
    """Tokens whose frequencies fall as 1 / rank: more distinct n-grams than any real text has."""
    weights = 1 / np.arange(1, vocab_size + 1)
    rng = np.random.default_rng(0)
    return rng.choice(vocab_size, N, p=weights / weights.sum()).astype(np.uint16)


def characters(path: Path) -> np.ndarray:
    codes = np.frombuffer(path.read_text("utf-8")[:N].encode("utf-32-le"), np.uint32)
    return np.unique(codes, return_inverse=True)[1].astype(np.uint16)


def median(what) -> float:
    what()  # warms up
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--text", type=Path)
    args = parser.parse_args()
    texts = {"zipf 1,024": (zipf(1024), 1024), "zipf 50,257": (zipf(50_257), 50_257)}
    if args.text:
        ids = characters(args.text)
        texts = {args.text.stem: (ids, int(ids.max()) + 1)} | texts
    models = {"bigram_counts": BigramCountsConfig(), "ngram order 5": NgramConfig(order=5)}
    table = []
    for text, (ids, vocab_size) in texts.items():
        for name, cfg in models.items():
            model = cfg.build(vocab_size)
            fit = median(lambda model=model, ids=ids: model.fit(ids))
            rows = 32 if vocab_size < 10_000 else 2  # 50,257 columns: 50 MB of logits
            windows = torch.from_numpy(ids[: rows * 128].astype(np.int64)).view(rows, 128)
            read = median(lambda model=model, windows=windows: model(windows))
            row = {
                "text": text, "tokens": len(ids), "model": name, "fit_ms": round(1e3 * fit, 1),
                "stored": model.n_params(), "eval_tokens_per_s": round(windows.numel() / read),
            }  # fmt: skip
            table.append(row)
            print("| " + " | ".join(str(v) for v in row.values()) + " |", flush=True)
    with open(Path(__file__).with_name("results.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
