"""Every command that README shows is run, one after the other as they stand, at a small size."""

import shlex
from pathlib import Path

import pytest

from tests.helpers import BPE, GPT2, ROOT, TINY, TINY_TRANSFORMER, export

SMALL = ["corpus=files", "corpus.path=my.txt", "train.steps=2", *TINY]
SMALLER = [*TINY_TRANSFORMER, *SMALL]
# What is added to a command so that it ends soon, by words of it; the first that fits counts.
ADDED: dict[str, list[str] | None] = {
    "experiment=001_model_ladder": None,  # it takes hours, and preflight's tests look at each
    "hydra/sweeper=lm": ["hydra.sweeper.n_trials=2", *SMALLER],
    "model=bigram,transformer": ["seed=0", *SMALL],
    "model=gru": SMALL,
    "resume=latest": [],
    "init_from=": [word for word in SMALL if word != "tokenizer=byte"],
    "lm.train": SMALLER,
    "lm.check model=transformer": ["grammar=false", *TINY_TRANSFORMER, "model.context_len=16"],
    "lm.compare": ["pairs=2", *SMALLER],
    "lm.tokenizer train": ["vocab_size=300"],
    "": [],
}
CHANGED = ("train.steps", "seed", "hydra.sweeper.n_trials", "vocab_size")  # in place of README's


def commands() -> list[str]:
    """README's own commands of Python, without what stands behind them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.split("  #")[0] for line in text.splitlines()]
    return [line for line in lines if line.startswith("python -m lm.")]


def small(command: str) -> list[str] | None:
    """The words of a command with those that make it small; None if it is not run."""
    added = next(words for start, words in ADDED.items() if start in command)
    if added is None:
        return None
    words = shlex.split(command)[2:]
    keys = {word.partition("=")[0] for word in words}
    added = [word for word in added if word.partition("=")[0] not in keys - {*CHANGED}]
    replaced = {word.partition("=")[0] for word in added}
    return [word for word in words if word.partition("=")[0] not in replaced] + added


@pytest.mark.faults
def test_every_command_of_readme_works(command, trained_once, toy_text, tmp_path):
    text = toy_text.read_text(encoding="utf-8")
    for name in ("my.txt", "book.txt"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    theirs = export(trained_once(*BPE, *GPT2), tmp_path / "gpt2")
    n_run = 0
    for line in commands():
        words = small(line.replace("GPT2_FOLDER", str(theirs)))
        if words is None:
            continue
        runs = sorted(map(str, Path("outputs/runs").glob("*/*")))[:2]
        words = [word.replace("RUN_A,RUN_B", ",".join(runs)) for word in words]
        done = command(*words)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        n_run += 1
    assert n_run == len(commands()) - 1
