"""python -m lm.check transfer: slopes that are flat with a base, and are not without one."""

import math
from dataclasses import replace

import pytest

from lm import config
from lm.check import transfer
from lm.check.__main__ import main
from lm.check.transfer import Sweep, Walk
from lm.settings.commands import TransferConfig
from lm.system.errors import ConfigError

SMALL = TransferConfig(widths="32,64,128", depths="1,2", steps=3, seeds=1)


def settings(model, optimizer=None) -> config.Config:
    return config.Config(
        corpus=config.PydocsConfig(),
        tokenizer=config.ByteConfig(),
        model=model,
        optimizer=optimizer or config.AdamWConfig(),
        schedule=config.ConstantConfig(),
    )


MODELS = {
    "transformer": config.TransformerConfig(context_len=16),
    "gru": config.GRUConfig(n_embd=128, n_hidden=128),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_base_makes_changes_flat_over_widths_that_grow_without_one(name):
    cfg = replace(SMALL, depths="1,1") if name == "gru" else SMALL
    carried, standard, *depths = transfer.examine(settings(MODELS[name]), cfg)
    assert carried.carried and not standard.carried
    assert transfer.worst(carried)[0] < 0.2  # narrow ones have more noise
    assert transfer.worst(standard)[0] > 0.5
    assert [sweep.axis for sweep in depths] == (["depth", "depth"] if name != "gru" else [])


@pytest.mark.parametrize("heads", ["grow", "fixed"])
def test_heads_grow_in_number_or_in_width(heads):
    cfg = replace(SMALL, heads=heads)
    model = config.TransformerConfig(n_embd=128, n_head=8, n_kv_head=4)
    wide = transfer.resized(model, cfg, Sweep("width", True, [32, 128]), 128)
    base = wide.base()
    assert (wide.n_embd, wide.n_head, wide.base_width) == (128, 8, 32)
    assert (base.n_head, base.n_kv_head) == ((2, 1) if heads == "grow" else (8, 4))


def walks(slope: float) -> list[Walk]:
    sizes = [(n / 32) ** slope for n in (32, 64)]
    return [Walk({"x": 1.0}, {1: {"x": size}}) for size in sizes]


def test_the_verdict_names_a_slope_that_is_off_and_a_check_that_shows_nothing():
    def sweeps(with_base: float, without: float) -> list[Sweep]:
        return [
            Sweep("width", True, [32, 64], walks(with_base)),
            Sweep("width", False, [32, 64], walks(without)),
        ]

    assert transfer.verdict(sweeps(0.05, 1.0)) == []
    (off,) = transfer.verdict(sweeps(-0.5, 1.0))
    assert off == "width: settings do not carry over, x at step 1: -0.50, not within 0.1"
    (nothing,) = transfer.verdict(sweeps(0.0, 0.0))
    assert nothing == "width: flat without a base too, so nothing was shown"
    (broken,) = transfer.verdict(sweeps(math.nan, 1.0))
    assert "x at step 1: +nan" in broken


@pytest.mark.parametrize(
    ("model", "changes", "text"),
    [
        (config.BigramConfig(), {}, "model=bigram has no n_embd: it cannot be widened"),
        (config.NgramConfig(), {}, "model=ngram has no n_embd: it cannot be widened"),
        (config.TransformerConfig(), {"widths": "48,96"}, "widths=48: model.n_head=4"),
        (config.TransformerConfig(), {"widths": "64,96"}, "does not divide model.n_embd=96"),
        (config.TransformerConfig(), {"widths": "64"}, "widths=64: a slope needs two sizes"),
        (config.TransformerConfig(), {"depths": "2,x"}, "depths=2,x: give numbers from 1"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_line(model, changes, text):
    with pytest.raises(ConfigError) as error:
        next(transfer.examine(settings(model), replace(SMALL, **changes)))
    assert text in str(error.value) and "\n" not in str(error.value)


def test_the_command_prints_slopes_and_draws_them(monkeypatch, tmp_path, capsys):
    words = ["model=transformer", "optimizer=adamw", "model.context_len=8", "train.threads=1"]
    small = ["widths=32,64,128", "depths=1,2", "steps=2", "seeds=1", "out=slopes.svg"]
    monkeypatch.setattr(transfer, "FLAT", 0.25)
    monkeypatch.setattr("sys.argv", ["lm.check", "transfer", *words, *small])
    main()
    told = capsys.readouterr().out
    assert "width 32, 64, 128; carried over from 32" in told and "all is well" in told
    assert (tmp_path / "slopes.svg").read_text().count("<svg") == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("slopes.txt", "give a name that ends in .svg or .png"),
        ("mine.svg", "mine.svg is there, and lm did not write it: choose another out="),
        ("mine.png", "mine.png is there, and lm did not write it: choose another out="),
    ],
)
def test_a_picture_takes_the_place_of_nothing_that_lm_did_not_draw(
    name, says, monkeypatch, tmp_path, capsys
):
    for mine in ("mine.svg", "mine.png"):
        (tmp_path / mine).write_text("a drawing")
    monkeypatch.setattr("sys.argv", ["lm.check", "transfer", f"out={name}"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and says in capsys.readouterr().err
    assert {path.read_text() for path in tmp_path.glob("mine.*")} == {"a drawing"}
