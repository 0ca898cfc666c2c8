"""Two runs compared on the same bytes: the difference in bits per byte, with its uncertainty.

    python -m lm.report compare=outputs/runs/A,outputs/runs/B

Tokenizers may differ: the text is cut only where both have a token's end, so that both models pay
for the same bytes in every span.
"""

from dataclasses import dataclass

import numpy as np

from lm.data import pipeline
from lm.record import ownership
from lm.record.run import Run
from lm.scoring import token_nats

SPAN = 1000  # bytes, at least: long enough that neighbouring spans are nearly independent
# Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass
class Comparison:
    """Two runs scored on the same text, in bits per byte."""

    a: float
    b: float
    low: float  # 95 % interval of b - a
    high: float
    n_spans: int
    n_bytes: int  # in these spans
    n_text: int  # in the whole text


@dataclass
class CodeLength:
    """What a run's model spends on its validation text, token by token."""

    text: str  # the fingerprint of the text
    ends: np.ndarray  # (n,): the bytes up to and with each token
    bits: np.ndarray  # (n,): what was spent up to there


def compare(first: str, second: str, trust: bool = False) -> Comparison:
    """Score both runs' best checkpoints on their validation text; ValueError if it differs.

    `trust` reads what the settings of a run from elsewhere name.
    """
    runs = [Run.open(first), Run.open(second)]
    for run in runs:
        ownership.check_reads(run.path, run.cfg, trust, [ownership.CORPUS])
    a, b = (code_length(run) for run in runs)
    if a.text != b.text:
        raise ValueError(
            f"compare={first},{second}: the runs have different validation texts "
            f"({runs[0].cfg.corpus.name} and {runs[1].cfg.corpus.name}); compare runs on one corpus"
        )
    cuts, bits_a, bits_b = common_spans(a.ends, a.bits, b.ends, b.bits)
    sizes = np.diff(cuts)
    low, high = interval(bits_b - bits_a, sizes)
    n_bytes = int(sizes.sum())
    return Comparison(
        a=bits_a.sum() / n_bytes,
        b=bits_b.sum() / n_bytes,
        low=low,
        high=high,
        n_spans=len(sizes),
        n_bytes=n_bytes,
        n_text=int(a.ends[-1]),
    )


def code_length(run: Run) -> CodeLength:
    """The bits that a run's best checkpoint spends on each token of its validation text."""
    corpus = pipeline.prepare_corpus(run.cfg.corpus)
    ids = pipeline.pack(corpus, run.tokenizer).val
    lengths = run.tokenizer.token_lengths()[np.asarray(ids)]  # (n,); 0 for special tokens
    nats = token_nats(run.model("best"), ids)[0]  # (n - 1,): the first token is not predicted
    bits = np.where(lengths[1:] > 0, nats, 0.0) / np.log(2)
    spent = np.concatenate(([0.0], np.cumsum(bits)))
    return CodeLength(pipeline.corpus_record(corpus).sha256.val, np.cumsum(lengths), spent)


def common_spans(
    ends_a: np.ndarray, bits_a: np.ndarray, ends_b: np.ndarray, bits_b: np.ndarray, span: int = SPAN
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut both streams where both have a token's end, at least `span` bytes apart.

    `ends` are the bytes up to and with each token, `bits` what was spent up to there. Returns the
    cuts (m + 1,) and the bits of both between them (m,). It starts behind the first token of
    both, which no model predicts; the last span takes what is too short for one of its own.
    Raises ValueError for fewer than two spans, as these give no interval.
    """
    shared = np.intersect1d(ends_a, ends_b)
    shared = shared[shared >= max(ends_a[0], ends_b[0])]
    cuts = [shared[0]] if len(shared) else []
    for end in shared[1:]:
        if end - cuts[-1] >= span:
            cuts.append(end)
    if len(cuts) < 3:
        raise ValueError(
            f"the validation text is too short to compare on: it needs two spans of {span} bytes; "
            "compare runs on a longer one"
        )
    cuts[-1] = shared[-1]
    places = np.array(cuts)
    # Behind the last token that ends there: special tokens have no bytes and cost no bits.
    at_a = bits_a[np.searchsorted(ends_a, places, side="right") - 1]
    at_b = bits_b[np.searchsorted(ends_b, places, side="right") - 1]
    return places, np.diff(at_a), np.diff(at_b)


def interval(differences: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """95 % interval of sum(differences) / sum(sizes) over spans (m,).

    Student's t of what the spans' differences are off from that ratio. It holds for few spans too,
    where a bootstrap's is too narrow.
    """
    n = len(sizes)
    total = sizes.sum()
    ratio = differences.sum() / total
    off = differences - ratio * sizes
    error = np.sqrt(n / (n - 1) * (off**2).sum()) / total
    half = t95(n - 1) * error
    return float(ratio - half), float(ratio + half)


def t95(degrees: int) -> float:
    """The two-sided 95 % quantile of Student's t, right to its third decimal."""
    if degrees <= len(T95):
        return T95[degrees - 1]
    # The normal's quantile z and what it lacks: Abramowitz and Stegun 1964, 26.7.5.
    z = 1.959964
    v = degrees
    first = (z**3 + z) / (4 * v)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return z + first + second + third


def describe(first: str, second: str, found: Comparison) -> str:
    """The comparison in four lines."""
    gap = found.b - found.a
    if found.low <= 0 <= found.high:
        verdict = "neither is shown to be better: the interval holds 0"
    else:
        verdict = "B is better" if gap < 0 else "A is better"
    lines = [
        f"A      {found.a:.4f} bits/byte  {first}",
        f"B      {found.b:.4f} bits/byte  {second}",
        f"B - A  {gap:+.4f} bits/byte, 95 % interval {found.low:+.4f} to {found.high:+.4f}",
        f"{verdict} (Student's t over {found.n_spans} spans, {found.n_bytes:,} of the text's "
        f"{found.n_text:,} bytes; one training seed each)",
    ]
    return "\n".join(lines)
