"""A choice that the settings name and the code does not know is an error, not another choice."""

import dataclasses
import importlib.util
import types

import pytest
import torch

from lm import config as settings_of_runs
from lm import evaluate, tokenizer, tokenizers, update
from lm.check import doctor, forward_checks, log_rules, model_rules, training_checks
from lm.check.bench import Bench
from lm.check.conformance import CHECKS
from lm.check.evidence import Evidence, Finding
from lm.check.transfer import Sweep, resized
from lm.config import GrammarConfig, TransformerConfig
from lm.corpora import written
from lm.data import engines
from lm.huggingface import families
from lm.report.records import Record
from lm.settings import Settings, commands
from lm.sweep import study
from lm.tokenizers import files, training
from tests.models import small

NEW = "new"


def transformer(**changed: str) -> None:
    cfg = dataclasses.replace(small.SETTINGS["transformer"])
    vars(cfg).update(changed)  # past the check of the settings
    cfg.build(small.V)(small.batch())


def documents_of(mode: str) -> None:
    cfg = GrammarConfig(n_documents=100)
    cfg.near_duplicates = mode
    written._write_part({}, cfg.build(), "grammar", None)


def on_a_text(command, cls: type[Settings], folder) -> None:
    (folder / "1.txt").write_text("1 2", encoding="utf-8")
    cfg = cls(tokenizer="byte", path=str(folder / "1.txt"), out=str(folder / "out"))
    cfg.format = NEW
    command(cfg)


def transfer() -> None:
    cfg = commands.TransferConfig()
    cfg.heads = NEW
    resized(TransformerConfig(), cfg, Sweep("width", True, [64, 128]), 128)


def sampler() -> None:
    pytest.importorskip("optuna")
    study.sampler(types.SimpleNamespace(seed=0, sampler=NEW), 0)


def pruner() -> None:
    pytest.importorskip("optuna")
    study._pruner(types.SimpleNamespace(pruner=NEW, warmup=0))


REFUSED = {
    "activation": lambda folder: transformer(activation=NEW),
    "norm": lambda folder: transformer(norm=NEW),
    "positions": lambda folder: transformer(positions=NEW),
    "near_duplicates": lambda folder: documents_of(NEW),
    "engine": lambda folder: engines.choose(NEW, tokenizers.train("byte", []), 1 << 30),
    "compile": lambda folder: update.should_compile(NEW, torch.device("cpu"), lambda: 0.0),
    "split": lambda folder: evaluate.ids_of(None, NEW),
    "heads": lambda folder: transfer(),
    "sampler": lambda folder: sampler(),
    "pruner": lambda folder: pruner(),
    "EncodeText.format": lambda folder: on_a_text(tokenizer.encode, commands.EncodeText, folder),
    "DecodeIds.format": lambda folder: on_a_text(tokenizer.decode, commands.DecodeIds, folder),
}
ELSEWHERE = {
    "errors": "goes to Python's own decoder, which refuses a word that it does not know",
    "tie_break": "tests/tokenizers/test_bpe_train.py tries each against the plain algorithm",
    "device": "PyTorch's name of it, looked up in a table",
    "dtype": "PyTorch's name of it",
    "mode": "W&B's own word",
    "artifacts": "what is neither all nor none uploads the model, which every run has",
    "ExportConfig.format": "tests/export/test_card.py: one table of writers",
    "name": "the kind of a tokenizer, looked up in a table",
}


def settings() -> list[type[Settings]]:
    found, todo = [], [Settings]
    while todo:
        todo += (kinds := todo.pop().__subclasses__())
        found += kinds
    return [c for c in found if c.__module__ in (settings_of_runs.__name__, commands.__name__)]


@pytest.mark.parametrize("name", REFUSED)
def test_a_choice_without_code_is_refused_by_its_name(name, tmp_path):
    with pytest.raises(ValueError, match=rf"{name.rpartition('.')[2]}=new is among the choices"):
        REFUSED[name](tmp_path)


def test_every_setting_with_choices_is_among_these():
    """A new one: what becomes of a choice that its code does not know?"""
    found = set()
    for cls in settings():
        for field in dataclasses.fields(cls):
            if len(field.metadata.get("choices", ())) > 1:
                own = f"{cls.__name__}.{field.name}"
                known = {own, field.name} & {*REFUSED, *ELSEWHERE}
                assert known, f"{own}: add it here"
                found |= known
    assert found == {*REFUSED, *ELSEWHERE}


def functions(module, *annotations: object) -> set:
    """The public functions of a module with these types of argument and result."""
    own = [f for name, f in vars(module).items() if isinstance(f, types.FunctionType)]
    own = [f for f in own if f.__module__ == module.__name__ and not f.__name__.startswith("_")]
    return {f for f in own if tuple(f.__annotations__.values()) == annotations}


def test_every_rule_of_the_doctor_and_every_check_of_a_model_is_in_its_list():
    """One that is written and not listed would never run, and nothing would say so."""
    for kind, listed in ((Record, doctor.LOG_RULES), (Evidence, doctor.RULES)):
        rules = [functions(module, kind, Finding | None) for module in (log_rules, model_rules)]
        assert set.union(*rules) == set(listed)
    checks = functions(forward_checks, Bench, str) | functions(training_checks, Bench, str)
    assert checks == set(CHECKS.values())


def choices(cls: type[Settings], name: str) -> set[str]:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return set(fields[name].metadata["choices"])


def test_tables_that_speak_of_the_same_things_have_the_same_keys():
    kinds = {*training._TRAINERS}
    assert kinds == {*files._BUILDERS}
    assert kinds == choices(commands.TrainTokenizer, "name")
    assert kinds == {*settings_of_runs.options("tokenizer")} - {"hf"}
    assert {*families.CLASSES} == {*families.SINCE} == {*families.FAMILIES}
    assert {*families.ACTIVATIONS} < choices(TransformerConfig, "activation")


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_a_module_and_says_what_it_does(name):
    assert importlib.util.find_spec(f"lm.{name.partition(' ')[0]}")
    cls = commands.COMMANDS[name]
    assert cls.__doc__.startswith(f"python -m lm.{name}") and commands.summary(cls)
