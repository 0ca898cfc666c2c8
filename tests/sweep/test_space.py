"""What a search draws from is what Hydra's grammar says."""

import sys

import pytest

from lm.launch import preflight
from lm.system.errors import ConfigError
from tests.sweep.searches import search_space


def test_hydra_s_grammar_becomes_optuna_s_distributions():
    d = pytest.importorskip("optuna").distributions
    fixed, found = search_space(
        "optimizer.lr=tag(log, interval(1e-4,3e-2))",
        "model.n_layer=range(2,6)",
        "model.n_embd=range(16,65,16)",
        "model.context_len=int(interval(8,32))",
        "model.norm=rmsnorm,layernorm",
        "train.steps=5",
        "~experiment",
        "+track.tags=[a,b]",
    )
    assert found == {
        "optimizer.lr": d.FloatDistribution(1e-4, 3e-2, log=True),
        "model.n_layer": d.IntDistribution(2, 5),
        "model.n_embd": d.IntDistribution(16, 64, step=16),
        "model.context_len": d.IntDistribution(8, 32),
        "model.norm": d.CategoricalDistribution(("rmsnorm", "layernorm")),
    }
    assert fixed == ["train.steps=5", "~experiment", "+track.tags=[a,b]"]


def test_the_command_line_wins_over_the_file_s_settings_to_search():
    fixed, found = search_space("a=1", a="1,2", b="3,4")
    assert fixed == ["a=1"] and list(found) == ["b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["seed=0,1,2"], "a seed is not tuned"), (["train.steps=3"], "nothing to tune")],
)
def test_a_search_that_cannot_be_is_refused_with_the_way_out(words, message):
    with pytest.raises(ConfigError, match=message):
        search_space(*words)


def test_a_search_without_optuna_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install optuna"):
        preflight.check(["-m", "hydra/sweeper=lm", "optimizer.lr=interval(0,1)"])
