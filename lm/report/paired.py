"""Two runs compared on the same bytes: the difference in bits per byte, with its uncertainty.

    python -m lm.report compare=outputs/runs/A,outputs/runs/B

Tokenizers may differ: the text is cut only where both have a token's end, so that both models pay
for the same bytes in every span.
"""

from dataclasses import dataclass

import numpy as np

from lm import pipeline, store
from lm.evaluate import token_nats
from lm.run import Run

SPAN = 1000  # bytes, at least: long enough that neighbouring spans are nearly independent
DRAWS = 4000  # of the bootstrap


@dataclass
class Comparison:
    """Bits per byte of both runs over the same text; `low` and `high` enclose their difference."""

    a: float
    b: float
    low: float  # 95 % interval of b - a
    high: float
    n_spans: int
    n_bytes: int


def compare(first: str, second: str) -> Comparison:
    """Score both runs' best checkpoints on their validation text; ValueError if it differs."""
    runs = [Run.open(first), Run.open(second)]
    scored = [spent(run) for run in runs]
    texts = {text for text, _, _ in scored}
    if len(texts) > 1:
        raise ValueError(
            f"compare={first},{second}: the runs have different validation texts "
            f"({runs[0].cfg.corpus.name} and {runs[1].cfg.corpus.name}); compare runs on one corpus"
        )
    (_, ends_a, bits_a), (_, ends_b, bits_b) = scored
    ends, a, b = common_spans(ends_a, bits_a, ends_b, bits_b)
    sizes = np.diff(ends)
    low, high = bootstrap(b - a, sizes)
    total = float(sizes.sum())
    return Comparison(a.sum() / total, b.sum() / total, low, high, len(sizes), int(total))


def spent(run: Run) -> tuple[str, np.ndarray, np.ndarray]:
    """The text's fingerprint; where each token ends, in bytes; the bits spent up to there."""
    corpus = pipeline.prepare_corpus(run.cfg.corpus)
    about = store.read_json(corpus / "corpus.json")
    ids = pipeline.pack(corpus, run.tokenizer).val
    lengths = run.tokenizer.token_lengths()[np.asarray(ids)]  # (n,); 0 for special tokens
    nats = token_nats(run.model("best"), ids)[0]  # (n - 1,): the first token is not predicted
    bits = np.where(lengths[1:] > 0, nats, 0.0) / np.log(2)
    return about["sha256"]["val"], np.cumsum(lengths), np.concatenate(([0.0], np.cumsum(bits)))


def common_spans(
    ends_a: np.ndarray, bits_a: np.ndarray, ends_b: np.ndarray, bits_b: np.ndarray, span: int = SPAN
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut both streams where both have a token's end, at least `span` bytes apart.

    `ends` are the bytes up to and with each token, `bits` what was spent up to there. Returns the
    cuts (m + 1,) and the bits of both between them (m,). It starts behind the first token of
    both, which no model predicts.
    """
    shared = np.intersect1d(ends_a, ends_b)
    shared = shared[shared >= max(ends_a[0], ends_b[0])]
    cuts = [shared[0]] if len(shared) else []
    for end in shared[1:]:
        if end - cuts[-1] >= span:
            cuts.append(end)
    if len(cuts) < 2:
        raise ValueError(f"the text is too short to compare on: it needs {span} bytes and more")
    places = np.array(cuts)
    # Behind the last token that ends there: special tokens have no bytes and cost no bits.
    at_a = bits_a[np.searchsorted(ends_a, places, side="right") - 1]
    at_b = bits_b[np.searchsorted(ends_b, places, side="right") - 1]
    return places, np.diff(at_a), np.diff(at_b)


def bootstrap(differences: np.ndarray, sizes: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of sum(differences) / sum(sizes), by drawing spans anew with replacement."""
    random = np.random.default_rng(seed)
    n = len(sizes)
    ratios = np.empty(DRAWS)
    for i in range(DRAWS):
        drawn = random.integers(n, size=n)
        ratios[i] = differences[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def told(first: str, second: str, found: Comparison) -> str:
    """The comparison in four lines."""
    gap = found.b - found.a
    better = "B is better" if gap < 0 else "A is better"
    if found.low <= 0 <= found.high:
        better = "neither is shown to be better: the interval holds 0"
    return "\n".join(
        [
            f"A      {found.a:.4f} bits/byte  {first}",
            f"B      {found.b:.4f} bits/byte  {second}",
            f"B - A  {gap:+.4f} bits/byte, 95 % interval {found.low:+.4f} to {found.high:+.4f}",
            f"{better} (paired bootstrap over {found.n_spans} spans of the same "
            f"{found.n_bytes:,} bytes; one training seed each)",
        ]
    )
