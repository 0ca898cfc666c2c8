"""`auto` and `20x` become numbers that follow from a model's size and the tokens of its run."""

import re
from dataclasses import replace

import pytest

from lm import config
from lm.launch import jobs
from lm.optim import horizon
from lm.system.errors import ConfigError

MODEL = config.TransformerConfig(n_layer=2, n_embd=32, context_len=16)
INNER = 2 * (12 * 32 * 32 + 2 * 32) + 32  # matrices and gains of two blocks, and the last norm


def settings(model=MODEL, optimizer=None, **train) -> config.Config:
    return config.Config(
        corpus=config.PydocsConfig(),
        tokenizer=config.ByteConfig(),
        model=model,
        optimizer=optimizer or config.AdamWConfig(lr=0.01),
        schedule=config.ConstantConfig(),
        train=config.TrainConfig(**train),
    )


def test_20x_are_20_tokens_for_each_parameter_that_no_vocabulary_changes():
    assert horizon.inner_params(settings()) == INNER
    assert horizon.inner_params(settings(replace(MODEL, tie=False))) == INNER
    assert horizon.resolved(settings(tokens="20x")).train.tokens == 20 * INNER
    assert horizon.resolved(settings(tokens="0.5x")).train.tokens == INNER // 2


def test_batch_and_decay_follow_the_laws():
    """By hand: 1e10 tokens ask for 0.0306 x 1e10^0.383 = 207 sequences of 2,048 tokens."""
    assert horizon.best_batch_tokens(1e10) / 2048 == pytest.approx(206.9, rel=1e-3)
    decay = horizon.best_decay(batch_tokens=1e6, n_tokens=1e10, n_params=5e8, rate=1e-3)
    # 20 tokens per parameter: weights forget over 1.084 x 20^-0.527 = 0.2236 of 10,000 steps
    assert decay == pytest.approx(1 / (0.2236 * 1e-3 * 10_000), rel=1e-3)


def test_decay_alone_follows_from_steps_too():
    optimizer = config.MuonConfig(weight_decay="auto")
    cfg = horizon.resolved(settings(optimizer=optimizer, steps=100, batch_size=4))
    expected = horizon.best_decay(64, 6400, INNER, 0.03)
    assert cfg.optimizer.weight_decay == pytest.approx(expected, rel=1e-3)


def test_a_batch_of_several_processes_is_shared_evenly():
    cfg = settings(tokens=100_000, batch_size="auto", n_proc=4, micro_batch=3)
    assert horizon.resolved(cfg).train.batch_size % 12 == 0


def test_a_run_says_what_came_out_and_that_it_is_a_guess_below_the_laws_range():
    optimizer = config.AdamWConfig(weight_decay="auto")
    asked = settings(optimizer=optimizer, tokens="20x", batch_size="auto")
    cfg = horizon.resolved(asked)
    assert cfg.unresolved() == []
    lines = "\n".join(horizon.describe(asked, cfg))
    assert f"train.tokens={20 * INNER}: 20x the {INNER:,} parameters" in lines
    assert f"train.batch_size={cfg.train.batch_size}: " in lines
    assert f"optimizer.weight_decay={cfg.optimizer.weight_decay:g}: " in lines
    assert "a guess here" in lines
    assert horizon.resolved(cfg) is cfg
    long = replace(cfg, train=replace(cfg.train, tokens=10**10))
    assert "a guess" not in "\n".join(horizon.describe(asked, long))


def test_the_same_command_finds_its_run_again(tmp_path):
    asked = settings(tokens="20x", batch_size="auto")
    there = horizon.resolved(asked)
    assert jobs.changes(there, asked) == {}
    assert "seed" in jobs.changes(there, replace(asked, seed=1))
    assert set(jobs.changes(there, replace(there, train=replace(there.train, tokens=1)))) == {
        "train.tokens"
    }


@pytest.mark.parametrize(
    ("train", "text"),
    [
        (
            {"batch_size": "auto", "seconds": 60.0},
            "batch_size=auto follows.*train.seconds=60",
        ),
        ({"batch_size": "auto", "flops": 1e9}, "train.batch_size=auto follows.*train.flops"),
        ({"batch_size": "auto"}, "train.batch_size=auto follows.*give train.tokens"),
        ({"batch_size": "many"}, "train.batch_size=many: must be auto, or at least 1"),
        ({"batch_size": 2.5}, r"train.batch_size=2\.5: must be auto"),
        ({"batch_size": True}, "train.batch_size=True: must be auto"),
        ({"tokens": "0x"}, "train.tokens=0x: must be 20x"),
        ({"tokens": "x"}, "train.tokens=x: must be 20x"),
        ({"tokens": "20x", "seconds": 1.0}, "train.tokens=20x and train.seconds"),
    ],
)
def test_what_nothing_follows_from_is_refused_in_one_line(train, text):
    with pytest.raises(ConfigError) as error:
        settings(**train)
    assert re.search(text, str(error.value)) and "\n" not in str(error.value)


@pytest.mark.parametrize("model", [config.BigramConfig(), config.NgramConfig()])
def test_a_model_without_inner_parameters_needs_numbers(model):
    with pytest.raises(ConfigError, match=r"train\.tokens: model=\w+ has no .*give numbers"):
        horizon.resolved(settings(model, tokens="20x"))


def test_decay_needs_a_clockless_budget_and_a_rate():
    auto = config.AdamWConfig(weight_decay="auto")
    with pytest.raises(ConfigError, match=r"optimizer\.weight_decay=auto follows"):
        settings(optimizer=auto, seconds=5.0)
    with pytest.raises(ConfigError, match=r"no meaning at optimizer\.lr=0"):
        horizon.resolved(settings(optimizer=replace(auto, lr=0.0)))


def test_numbers_as_text_or_without_a_fraction_are_the_same_settings():
    assert config.AdamWConfig(weight_decay=1) == config.AdamWConfig(weight_decay=1.0)
    assert config.TrainConfig(batch_size="16").batch_size == 16
