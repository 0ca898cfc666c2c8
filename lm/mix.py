"""Several runs as one model: the weighted mean of their probabilities, over a validation split.

python -m lm.mix runs=outputs/runs/A,outputs/runs/B stride=64

Each model takes part at the temperature that suits it: one that was trained for many epochs is too
sure of itself (Guo et al. 2017, https://arxiv.org/abs/1706.04599). Temperatures and weights are
chosen on the first half of the text, so the second half says what they are worth.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("mix")

from dataclasses import dataclass

import numpy as np

from lm import metrics
from lm.data import pipeline
from lm.launch import cli
from lm.record import ownership
from lm.record.find import is_name
from lm.record.run import Run
from lm.scoring import token_nats
from lm.settings.commands import MixConfig
from lm.system.streams import print_line

TEMPERATURES = [t / 20 for t in range(14, 41)]  # 0.7 to 2
ROUNDS = 100  # of expectation maximisation: weights then stand still to four digits


@dataclass
class Part:
    """One run of the mixture, and what its model spends on each token of the text."""

    name: str
    temperature: float  # that suits it
    plain_nats: np.ndarray  # (n,) at temperature 1
    nats: np.ndarray  # (n,) at its own temperature


def weights(nats: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """The weights (k,) of the mixture of k models that gives these tokens the most probability.

    `nats` (k, n) is what each model spends on each token. Expectation maximisation (Jelinek and
    Mercer 1980): a model's new weight is the mean share it had in the tokens' probabilities.
    """
    p = np.exp(nats.min(axis=0) - nats)  # (k, n) over the highest of each token: none is lost
    w = np.full(len(nats), 1 / len(nats))
    for _ in range(rounds):
        share = w[:, None] * p
        w = (share / share.sum(axis=0)).mean(axis=1)
    return w


def mixed(nats: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What the mixture with weights w (k,) spends on each token (n,), in nats."""
    least = nats.min(axis=0)
    with np.errstate(divide="ignore"):  # a model of weight 0 may be the only one to know a token
        return least - np.log(w @ np.exp(least - nats))


def command(cfg: MixConfig) -> None:
    """Print bits per byte of each run and of the mixture, on both halves of the text."""
    names = cli.names(cfg.runs, is_name)
    runs = _open_runs(cfg, names)
    ids = pipeline.prepare(runs[0].cfg).val  # (n + 1,)
    n_bytes = runs[0].tokenizer.token_lengths()[np.asarray(ids[1:])]  # (n,) 0: special
    half = len(n_bytes) // 2
    scored = n_bytes[:half] > 0
    if not scored.any() or not n_bytes[half:].any():
        raise ValueError(
            f"runs={cfg.runs}: the validation text has {len(ids)} tokens, and each half needs one "
            "to score; give runs on a longer text, or with a larger corpus.val_fraction"
        )
    parts = []
    for name, run in zip(names, runs, strict=True):
        parts.append(_part(name, run, cfg, ids, scored))
    nats = np.stack([part.nats for part in parts])  # (k, n)
    w = weights(nats[:, :half][:, scored])
    longest = max(run.cfg.model.context_len for run in runs)
    how = f"windows of {longest}"
    if cfg.stride:
        how += f", {cfg.stride} scored in each"
    print_line(f"bits per byte of {n_bytes.sum():,} bytes, {how}")
    print_line("temperatures and weights chosen on the first half")
    print_line(f"{'temp':>5} {'weight':>7} {'1st half':>9} {'2nd half':>9} {'whole':>9}")
    for part, weight in zip(parts, w, strict=True):
        bits = _bits_of_halves(part.plain_nats, n_bytes)
        print_line(f"{1:5.2f} {'':7}{bits}  {part.name}")
        bits = _bits_of_halves(part.nats, n_bytes)
        print_line(f"{part.temperature:5.2f} {weight:7.3f}{bits}  {part.name}")
    print_line(f"{'':5} {1:7.3f}{_bits_of_halves(mixed(nats, w), n_bytes)}  mixture")


def _open_runs(cfg: MixConfig, names: list[str]) -> list[Run]:
    """The runs of these names; ValueError if they cannot be mixed."""
    if len(names) < 2:
        raise ValueError(f"runs={cfg.runs}: give two runs or more, as runs=A,B")
    runs = [Run.open(name) for name in names]
    for run in runs:
        ownership.check_reads(run.path, run.cfg, cfg.trust)
    tokenizers = {run.tokenizer.fingerprint for run in runs}
    if len(tokenizers) > 1:
        raise ValueError(f"runs={cfg.runs}: the runs have different tokenizers")
    corpora = {pipeline.prepare_corpus(run.cfg.corpus) for run in runs}
    if len(corpora) > 1:
        raise ValueError(f"runs={cfg.runs}: the runs have different texts")
    shortest = min(run.cfg.model.context_len for run in runs)
    if cfg.stride > shortest:
        raise ValueError(f"stride={cfg.stride} is not from 0 to the context_len of every run")
    return runs


def _part(name: str, run: Run, cfg: MixConfig, ids: np.ndarray, scored: np.ndarray) -> Part:
    """A run at the temperature that suits the first half of ids; `scored` are its targets."""
    model = run.model(cfg.checkpoint)
    first_half = ids[: len(scored) + 1]
    nats = token_nats(model, first_half, cfg.stride, TEMPERATURES)[:, scored]
    temperature = TEMPERATURES[nats.sum(axis=1).argmin()]
    plain_nats, own_nats = token_nats(model, ids, cfg.stride, (1.0, temperature))
    return Part(name, temperature, plain_nats, own_nats)


def _bits_of_halves(nats: np.ndarray, n_bytes: np.ndarray) -> str:
    """Bits per byte on the first half, the second, and the whole text, as columns."""
    half = len(n_bytes) // 2
    columns = ""
    for part in (slice(half), slice(half, None), slice(None)):
        sizes = n_bytes[part]
        spent = nats[part][sizes > 0].sum()  # special tokens have no bytes and do not count
        columns += f" {metrics.bits_per_byte(float(spent), int(sizes.sum())):9.4f}"
    return columns


if __name__ == "__main__":
    cli.main(MixConfig, command)
