"""Several runs as one model: the weighted mean of their probabilities, over a validation split.

python -m lm.mix runs=outputs/runs/A,outputs/runs/B stride=64

Each model takes part at the temperature that suits it: one that was trained for many epochs is too
sure of itself (Guo et al. 2017, https://arxiv.org/abs/1706.04599). Temperatures and weights are
chosen on the first half of the text, so the second half says what they are worth.
"""

if __name__ == "__main__":
    from lm.system import signals

    signals.end_on_ctrl_c()

from dataclasses import dataclass

import numpy as np

from lm import metrics, pipeline
from lm.evaluate import token_nats
from lm.launch import cli
from lm.record.run import Run
from lm.settings import Settings, within

TEMPERATURES = [t / 20 for t in range(14, 41)]  # 0.7 to 2
ROUNDS = 100  # of expectation maximisation: weights then stand still to four digits


@dataclass
class MixConfig(Settings):
    """python -m lm.mix: several runs with one tokenizer as one model, scored on their text."""

    runs: str = ""  # run directories, A,B,...
    checkpoint: str = "best"
    stride: int = within(0, 0)  # tokens scored in each window, the others being context; 0: all


def weights(nats: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """The weights (k,) of the mixture of k models that gives these tokens the most probability.

    `nats` (k, n) is what each model spends on each token. Expectation maximisation (Jelinek and
    Mercer 1980): a model's new weight is the mean share it had in the tokens' probabilities.
    """
    p = np.exp(-nats)  # (k, n)
    w = np.full(len(nats), 1 / len(nats))
    for _ in range(rounds):
        share = w[:, None] * p
        w = (share / share.sum(axis=0)).mean(axis=1)
    return w


def mixed(nats: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What the mixture with weights w (k,) spends on each token (n,), in nats."""
    return -np.log(w @ np.exp(-nats))


def command(cfg: MixConfig) -> None:
    names = cfg.runs.split(",")
    if len(names) < 2:
        raise ValueError(f"runs={cfg.runs}: give two runs or more, as runs=A,B")
    runs = [Run.open(name) for name in names]
    if len({run.tokenizer.fingerprint for run in runs}) > 1:
        raise ValueError(f"runs={cfg.runs}: the runs have different tokenizers")
    corpora = {str(pipeline.prepare_corpus(run.cfg.corpus)) for run in runs}
    if len(corpora) > 1:
        raise ValueError(f"runs={cfg.runs}: the runs have different texts")
    ids = pipeline.prepare(runs[0].cfg).val
    longest = max(run.cfg.model.context_len for run in runs)
    if not 0 <= cfg.stride <= min(run.cfg.model.context_len for run in runs):
        raise ValueError(f"stride={cfg.stride} is not from 0 to the context_len of every run")
    size = runs[0].tokenizer.token_lengths()[np.asarray(ids[1:])]  # (n,) bytes; 0: special
    half = len(size) // 2
    first = size[:half] > 0
    temperatures, plain, nats = [], [], []
    for run in runs:
        model = run.model(cfg.checkpoint)
        spent = token_nats(model, ids[: half + 1], cfg.stride, TEMPERATURES)[:, first]
        temperatures.append(TEMPERATURES[spent.sum(axis=1).argmin()])
        both = token_nats(model, ids, cfg.stride, (1.0, temperatures[-1]))
        plain.append(both[0])
        nats.append(both[1])
    w = weights(np.stack(nats)[:, :half][:, first])
    how = f"windows of {longest}" + (f", {cfg.stride} scored in each" if cfg.stride else "")
    print(f"bits per byte of {size.sum():,} bytes, {how}")
    print("temperatures and weights chosen on the first half")
    print(f"{'temp':>5} {'weight':>7} {'1st half':>9} {'2nd half':>9} {'whole':>9}")

    def row(about: str, spent: np.ndarray, name: str) -> None:
        bits = [
            metrics.bits_per_byte(float(spent[part][size[part] > 0].sum()), int(size[part].sum()))
            for part in (slice(half), slice(half, None), slice(None))
        ]
        print(about + "".join(f" {b:9.4f}" for b in bits) + f"  {name}")

    for i, name in enumerate(names):
        row(f"{1:5.2f} {'':7}", plain[i], name)
        row(f"{temperatures[i]:5.2f} {w[i]:7.3f}", nats[i], name)
    row(f"{'':5} {1:7.3f}", mixed(np.stack(nats), w), "mixture")


if __name__ == "__main__":
    cli.main(MixConfig, command)
