"""The command `lm`, whose first word is one of the commands."""

import importlib
import runpy
import sys
import tomllib

import pytest

from lm.__main__ import main
from lm.launch import cli
from lm.settings import commands
from tests.helpers import ROOT


def lm(monkeypatch, capsys, *words):
    """Exit code and what was printed, of the function that pyproject.toml names."""
    monkeypatch.setattr(sys, "argv", ["lm", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0, capsys.readouterr()


def test_the_script_lm_is_this_function():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["scripts"]["lm"].partition(":")
    assert getattr(importlib.import_module(module), name) is main


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_lm_alone_lists_every_command_in_one_line_each(words, monkeypatch, capsys):
    code, said = lm(monkeypatch, capsys, *words)
    lines = said.out.splitlines()
    assert code == 0 and not said.err
    assert all(len(line) <= 80 for line in lines)
    for name, cls in commands.COMMANDS.items():
        (line,) = (line for line in lines if line.startswith(f"  {name}  "))
        assert line.endswith(commands.summary(cls))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["samle", "run=latest"], "lm samle is no command (did you mean lm sample?)"),
        (["model=gru"], "(did you mean lm train model=gru?)"),
        (["-m", "seed=0,1"], "(did you mean lm train -m?)"),
        (["xyzzy"], "(known: train, sample, "),
        ([""], "is no command (known: "),
        (["sys"], "is no command"),
        (["launch.main"], "is no command"),
        (["tokenizer train"], "did you mean lm tokenizer?"),
    ],
)
def test_an_unknown_command_is_one_line_with_the_nearest(words, hint, monkeypatch, capsys):
    code, said = lm(monkeypatch, capsys, *words)
    assert code == 2 and not said.out
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and hint in said.err


def test_a_command_gets_its_words_as_from_its_module(monkeypatch, capsys):
    for words in (["sample", "--help"], ["tokenizer", "train", "--help"], ["sample", "promt=x"]):
        # Loaded by another test, each would make runpy warn.
        monkeypatch.delitem(sys.modules, f"lm.{words[0]}", raising=False)
        code, by_name = lm(monkeypatch, capsys, *words)
        monkeypatch.delitem(sys.modules, f"lm.{words[0]}", raising=False)
        monkeypatch.setattr(sys, "argv", [f"lm.{words[0]}", *words[1:]])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(f"lm.{words[0]}", run_name="__main__")
        assert (code, by_name) == (ended.value.code or 0, capsys.readouterr())


def test_a_command_is_the_main_module_so_that_processes_it_starts_find_it(monkeypatch):
    """Those of train.n_proc=2 import the main module by the name in its spec."""
    seen = []

    def started(*_, **__):
        module = sys.modules["__main__"]
        seen.append((module.__spec__.name, module.command.__module__, sys.argv[1:]))

    monkeypatch.setattr(cli, "main", started)
    monkeypatch.setattr(sys, "argv", ["lm", "completion", "bash"])
    main()
    assert seen == [("lm.completion", "__main__", ["bash"])]
