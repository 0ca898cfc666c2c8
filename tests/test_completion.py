"""The tab key knows every command, key and value that --help knows, in a real shell."""

import contextlib
import dataclasses
import os
import resource
import select
import shutil
import subprocess
import sys
import time

import pytest

from lm import completion, config
from lm.launch import keys, presets
from lm.settings import commands
from tests.helpers import ROOT, timed

ANSWERS = {
    "tr": ["train"],
    "tokenizer sh": ["show"],
    "completion ": ["bash", "zsh", "fish"],
    "train opti": ["optimizer=", "optimizer."],
    "train -m model=gru,tr": ["model=gru,transformer"],
    "train model=gru model.n_h": ["model.n_hidden="],
    "train -m model=gru,gpt2 model.n_h": ["model.n_hidden=", "model.n_head="],
    "train ++train.comp": ["++train.compile="],
    "train train.compile=g": ["train.compile=graphs"],
    "train train.shard=": ["train.shard=true", "train.shard=false"],
    "train hydra/sw": ["hydra/sweeper="],
    "train hydra.sweeper.pr": ["hydra.sweeper.pruner="],
    "train --mu": ["--multirun"],
    "train experiment=001": ["experiment=001_model_ladder"],
    "check model=tr": ["model=transformer"],
    "compare model=gru model.n_h": ["model.n_hidden="],
    "sample  device=c": ["device=cpu", "device=cuda"],
    "sample run=l": ["run=latest"],
    "lens run=l": ["run=latest"],
    "train resume=l": ["resume=latest"],
    "train hydra.sweep.dir=l": ["hydra.sweep.dir=latest"],
    "check tra": ["transfer", "track=", "track.", "train=", "train."],
    "check run=x tra": ["track=", "track.", "train=", "train."],
    "train 'model=gr": ["model=gru"],
    "train 'corpus.path=notes/a b": ["corpus.path=notes/a b.txt"],
    'train "corpus.path=notes/a b': ["corpus.path=notes/a b.txt"],
    "train corpus.path=notes/a\\ b": ["corpus.path=notes/a b.txt"],
    "sample 'prompt=a b' run=l": ["run=latest"],
    "train corpus.path=no": ["corpus.path=notes/"],
    "train corpus.path=notes/": ["corpus.path=notes/a b.txt", "corpus.path=notes/b.md"],
    "report no": ["notes/"],
    "train corpus.parts.mine.path=no": ["corpus.parts.mine.path=notes/"],
    "mix runs=a,no": ["runs=a,notes/"],
    "sample model=": [],
    "nothing ": [],
    "train model=nothing model.n_k": ["model.n_kv_head="],
    "train -m model=choice(gru,mlp) model.n_k": ["model.n_kv_head="],
    "train +model=gru model.n_hid": ["model.n_hidden="],
    "train model=[": [],
    "report experiment=001": ["experiment=001_model_ladder"],
    "": [*commands.VERBS, "--help"],
}


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes").mkdir()
    for name in ("a b.txt", "b.md"):
        (tmp_path / "notes" / name).write_text("text")


@pytest.mark.parametrize("line", ANSWERS)
def test_the_last_word_is_completed_by_what_stands_before_it(line, notes, capsys):
    completion.answer(f"lm {line}")
    assert set(capsys.readouterr().out.splitlines()) == set(ANSWERS[line])


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_every_key_of_the_help_is_completed_and_every_value_of_a_list(command):
    for section in keys.sections(command) if command != "completion" else ():
        for key in section.keys:
            assert f"{key.name}=" in completion.completed([*command.split(), key.name])
            if key.values:
                found = completion.completed([*command.split(), f"{key.name}="])
                assert found == [f"{key.name}={value}" for value in key.values]


@pytest.mark.parametrize("group", config.GROUPS)
def test_every_choice_of_a_group_is_completed(group):
    found = completion.completed(["train", "-m", f"{group}="])
    assert found == [f"{group}={name}" for name in presets.names(group)]


@timed
def test_an_answer_loads_nothing_slow_and_takes_under_a_third_of_a_second():
    command = [sys.executable, "-X", "importtime", "-m", "lm", "_complete"]
    seconds = []
    while len(seconds) < 4 and min(seconds, default=1.0) > 0.3:  # a busy machine has slower ones
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            [*command, "lm train model=gru model."], cwd=ROOT, capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in ended.stderr.splitlines()}
    assert "model.n_hidden=" in ended.stdout.splitlines()
    assert not loaded & {"torch", "hydra", "omegaconf", "wandb", "numpy", "rich"}
    assert min(seconds) < 0.3


# ---------------------------------------------------------------------------- in a real shell


@dataclasses.dataclass
class Terminal:
    """A shell that reads what is typed at the one end of a terminal."""

    end: int

    def typed(self, text: str, until: str) -> str:
        """What the terminal shows after this was typed, up to `until`."""
        os.write(self.end, text.encode())
        shown, last = "", time.monotonic() + 30
        while until not in shown and time.monotonic() < last:
            if select.select([self.end], [], [], 1.0)[0]:
                shown += os.read(self.end, 4096).decode()
        assert until in shown, shown
        return shown


@pytest.fixture
def bash(tmp_path):
    pty = pytest.importorskip("pty")  # not on Windows
    if not shutil.which("bash"):
        pytest.skip("bash is not installed")
    script = tmp_path / "bin/lm"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m lm "$@"\n')
    script.chmod(0o755)
    env = {"PATH": f"{script.parent}:{os.environ['PATH']}", "TERM": "dumb", "INPUTRC": "/dev/null"}
    env |= {"PYTHONPATH": str(ROOT), "PS1": "> "}
    end, other = pty.openpty()
    words = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(
        words, stdin=other, stdout=other, stderr=other, env=env, start_new_session=True
    ) as process:
        os.close(other)
        yield Terminal(end)
        process.kill()
    with contextlib.suppress(OSError):
        os.close(end)


@pytest.mark.slow
def test_bash_completes_commands_keys_and_values_also_in_a_sweep(bash, notes):
    bash.typed('eval "$(lm completion bash)"; echo re""ady\n', "ready")
    bash.typed("lm tra\tmodel=gr\t", "lm train model=gru ")
    bash.typed("model.n_hid\t", "model.n_hidden=")
    bash.typed("\x15lm train -m model=mlp,gr\t", "lm train -m model=mlp,gru ")
    bash.typed("optimizer=a\t", "optimizer=adamw ")
    bash.typed("corpus.path=no\tb\t", "corpus.path=notes/b.md ")
    bash.typed("\x15lm train corpus.path=notes/a\t", "corpus.path=notes/a\\ b.txt ")
    bash.typed("\x15lm train corpus.path=notes/a\\ \t", "corpus.path=notes/a\\ b.txt ")
    bash.typed("\x15lm train 'corpus.path=notes/a \t", "'corpus.path=notes/a b.txt'")
    bash.typed("\x15lm sample device=\t\t", "mps")
    bash.typed("\x15echo lm\n", "\nlm")


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_the_script_of_a_shell_is_one_that_it_can_read(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=completion.SCRIPTS[shell], text=True, check=True)
