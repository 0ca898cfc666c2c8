"""Words of the verbs that compose nothing, made at random from each verb's own settings: a verb
does its work or refuses in one line, and never touches what it was not told to write.

    LM_FUZZ_SECONDS=600 LM_FUZZ_SEED=7 python -m pytest -m faults tests/fuzz/test_words.py
"""

import dataclasses
import io
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from lm import config, evaluate, mix, sample, tokenizer, tokenizers, train
from lm.export import __main__ as export
from lm.launch import cli, compose
from lm.lens import __main__ as lens
from lm.report import __main__ as report
from lm.system import streams

SECONDS = float(os.environ.get("LM_FUZZ_SECONDS", 20))
FIRST = int(os.environ.get("LM_FUZZ_SEED", 0))
FEW = 30  # inputs without the marker, of the verbs that need no run
# A verb's settings, its command, and words with which it works.
VERBS = {
    "train": (*tokenizer.ACTIONS["train"], ["path=a.txt", "vocab_size=269", "out=new"]),
    "encode": (*tokenizer.ACTIONS["encode"], ["tokenizer=tok.json", "path=a.txt", "out=new"]),
    "decode": (*tokenizer.ACTIONS["decode"], ["tokenizer=tok.json", "path=ids", "out=new"]),
    "show": (*tokenizer.ACTIONS["show"], ["tokenizer=tok.json", "text=ab"]),
    "compare": (*tokenizer.ACTIONS["compare"], ["tokenizers=tok.json,byte", "text=ab"]),
    "sample": (sample.SampleConfig, sample.command, ["run=run", "n=1", "max_tokens=3"]),
    "evaluate": (evaluate.EvaluateConfig, evaluate.command, ["run=run"]),
    "mix": (mix.MixConfig, mix.command, ["runs=run,run"]),
    "export": (export.ExportConfig, export.command, ["run=run", "format=tokenizers"]),
    "lens": (lens.LensConfig, lens.command, ["run=run"]),
    "report": (report.ReportConfig, report.command, ["runs=run"]),
}
NUMBERS = ["nan", "inf", "-1", "0", "1", "1e400", "1e-300", "true", "null", "1_0", "\u0661", "0x10"]
YAML = ["~", "[", "[1", "[]", "{a: 1}", "*", "%", "&a", "!!int 3", "@", "`", "'", '"', "", "a,b"]
NAMES = ["byte", "run", "tok.json", "ids", "a.txt", "none", "folder", "/dev/null", ".", "run,run"]
NAMES += ["byte,tok.json", "hf", "raw", "best", "**", "\\", "${x}", "\udcff", "\x1b[31m", "a" * 999]
NOT_DRAWN = ("watch",)  # has no end


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run, a tokenizer, a text and its ids."""
    home = tmp_path_factory.mktemp("words")
    (home / "a.txt").write_text("the cat sat on the mat\n" * 200, encoding="utf-8")
    (home / "ids").write_text("97 98\n", encoding="utf-8")
    (home / "folder").mkdir()
    tokenizers.train("bpe", ["the cat sat " * 9], vocab_size=260).save(home / "tok.json")
    words = ["corpus=files", f"corpus.path={home / 'a.txt'}", "tokenizer=byte", "model=bigram"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LM_CACHE_DIR", str(home / "cache"))
        cfg = compose.compose_run([*words, "train=smoke", "train.steps=2", "track=off"])
        (home / "run").mkdir()
        config.save(cfg, home / "run" / config.RESOLVED)
        train.train(cfg, home / "run")
    return home


def draw(rng: random.Random, verbs: list[str]) -> tuple[str, list[str]]:
    """One of the verbs and words that work, of which one or two are changed."""
    verb = rng.choice(verbs)
    cls, _, words = VERBS[verb]
    keys = [f.name for f in dataclasses.fields(cls) if f.name not in NOT_DRAWN]
    for _ in range(rng.randint(1, 2)):
        key = rng.choice(keys)
        value = rng.choice(rng.choice([NUMBERS, YAML, NAMES]))
        words = [word for word in words if not word.startswith(f"{key}=")]
        words.append(f"{key}={value}")
    return verb, words


def hashed(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def check(verb: str, words: list[str], home: Path, patch: pytest.MonkeyPatch) -> None:
    """Run the verb; the files that it was to read are as they were, unless out= names one."""
    cls, command, _ = VERBS[verb]
    before = hashed(home)
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"97 98\n"), encoding="utf-8"))
    told = None
    try:
        command(cli.parse(cls, words, "runs" if verb == "report" else ""))
    except Exception as error:
        told = error
    is_ours = isinstance(told, (ValueError, OSError)) or hasattr(told, "exit_code")
    assert told is None or (is_ours and str(told)), (verb, words, repr(told))
    inputs = [word.partition("=")[2] for word in words if not word.startswith("out=")]
    for name in ("a.txt", "ids", "tok.json"):
        path = str(home / name)
        if name in inputs or f"out={name}" not in words:
            assert hashed(home).get(path) == before[path], (verb, words)


def run(n: int | None, home: Path, patch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """Check `n` inputs, or as many as there is time for, each in a fresh copy of the folder."""
    until = time.monotonic() + SECONDS
    rng = random.Random(FIRST)
    done = 0
    patch.setenv("LM_CACHE_DIR", str(home / "cache"))
    here = tmp_path / "here"
    while done < n if n else time.monotonic() < until:
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(home, here, ignore=shutil.ignore_patterns("cache"))
        patch.chdir(here)
        check(*draw(rng, list(tokenizer.ACTIONS) if n else sorted(VERBS)), here, patch)
        done += 1
    return done


def test_a_few_odd_words_of_the_tokenizer_s_verbs_are_taken_or_refused(home, monkeypatch, tmp_path):
    run(FEW, home, monkeypatch, tmp_path)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_does_its_work_where_the_terminal_has_ascii_alone(
    verb, home, monkeypatch, tmp_path
):
    """lm.sample died of the first character of the model that ASCII does not have."""
    shutil.copytree(home, tmp_path / "here", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("LM_CACHE_DIR", str(home / "cache"))
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    streams.replace_what_has_no_code()
    cls, command, words = VERBS[verb]
    odd = {"sample": "prompt", "lens": "prompt", "show": "text", "compare": "text"}.get(verb)
    kept = [word for word in words if not word.startswith(f"{odd}=")]
    command(cli.parse(cls, [*kept, f"{odd}=caf\u00e9 \u732b"] if odd else words))
    sys.stdout.flush()
    assert verb in ("train", "encode", "decode") or sys.stdout.buffer.getvalue()


@pytest.mark.faults
def test_many_odd_words_of_every_verb_are_taken_or_refused(
    home, monkeypatch, tmp_path, record_property
):
    record_property("inputs tried at random", run(None, home, monkeypatch, tmp_path))
