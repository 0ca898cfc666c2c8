"""Every command that README shows is run, one after the other as they stand, at a small size."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lm import completion
from lm.settings import commands as verbs
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


def pages() -> dict[str, str]:
    """Every README of the repository, by its path, and the pages in docs/."""
    found = [*ROOT.glob("*/**/README.md"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    own = [path for path in found if not {".venv", "outputs", "build"} & set(path.parts)]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in own}
    return {name: text.replace("\\\n", " ") for name, text in texts.items()}


OF_LM = r"(?:torchrun .*|python )-m lm\.|lm "  # how a command of lm begins
OTHER_KEYS = ("hydra.", "corpus.parts.", "corpus.weights", "arm")  # the user's names are in them


def shown(text: str) -> list[list[str]]:
    """The words of each command of lm on a page, its own line or within one, behind the `lm`."""
    own_lines = re.findall(rf"^(?:{OF_LM})(\S.*?)(?:  #.*)?$", text, re.M)
    in_lines = re.findall(rf"`(?:{OF_LM})([^`]+)`", text)
    return [shlex.split(command) for command in own_lines + in_lines]


def test_every_command_on_a_page_has_a_verb_and_keys_that_help_knows():
    """A page of a folder is left behind when a setting gets another name."""
    n_keys = 0
    for name, text in pages().items():
        for verb, *words in shown(text):
            assert verb in verbs.VERBS, f"{name}: lm {verb}"
            keys = [word.partition("=")[0].lstrip("+") for word in words if "=" in word]
            for key in keys if "import" not in keys else ():
                if not key.startswith(OTHER_KEYS):
                    known = completion.completed([verb, *words, key])
                    assert f"{key}=" in known, f"{name}: lm {verb} ... {key}="
                    n_keys += 1
    assert n_keys > 50


def test_the_road_of_a_batch_names_functions_that_are_in_their_files():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    (row,) = re.findall(r"^\| a batch's road \| (.*) \|$", text, re.M)
    places = re.findall(r"((?:`[\w.]+`(?:, )?)+) \(`([^`]+)`\)", row)
    assert len(places) == row.count("(") > 8
    for names, file in places:
        code = (ROOT / "lm" / file).read_text(encoding="utf-8")
        for name in re.findall(r"\w+", names):
            assert re.search(rf"\b(?:def|class) {name}\b", code), f"{name} is not in {file}"


def test_every_target_of_make_on_a_page_is_there():
    text = "\n".join(pages().values())
    words = ["make", "-n", "N=001", *sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M)))]
    assert len(words) > 10
    assert subprocess.run(words, cwd=ROOT, capture_output=True).returncode == 0


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
