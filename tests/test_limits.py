"""Every number has limits: at them it works, beyond them one line says what is allowed."""

import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
import torch

from lm import config
from lm.data.batches import Batches
from lm.generate import generate
from lm.settings import MOST, Settings, commands
from lm.system import devices, ranks
from lm.system.errors import ConfigError
from lm.update import Update
from tests.helpers import ROOT, TINY_TRANSFORMER, rows

VERBS = [*commands.COMMANDS.values(), commands.TunerConfig]
GROUPS = [config.Config, config.TrainConfig, config.TrackConfig]
PARTS = [part for group in config.PARTS for part in config.options(group).values()]


def numbers(cls: type[Settings]) -> list[dataclasses.Field]:
    numeric = (int, float)
    return [f for f in dataclasses.fields(cls) if f.type in numeric or "word" in f.metadata]


def kind(f: dataclasses.Field) -> type:
    """int or float, also of one that takes a word such as `auto` besides."""
    return f.type if f.type in (int, float) else int if f.metadata["whole"] else float


def limits(f: dataclasses.Field) -> list[float]:
    return [f.metadata["low"], f.metadata["high"]] + [0] * f.metadata.get("zero", False)


def made(cls: type[Settings], **values: object) -> Settings:
    if "path" in {f.name for f in dataclasses.fields(cls)} and issubclass(cls, config.Part):
        values["path"] = "x"
    if cls is config.Config:
        parts = {group: config.options(group) for group in config.PARTS}
        names = ("pydocs", "byte", "bigram", "adamw", "cosine")
        values |= {g: parts[g][name]() for g, name in zip(parts, names, strict=True)}
    return cls(**values)


def refusal(cls: type[Settings], name: str, value: float) -> str:
    """Why the value is refused, "" if it is not."""
    try:
        made(cls, **{name: value})
    except ConfigError as error:
        return str(error)
    return ""


ALL = [(cls, f) for cls in (*GROUPS, *PARTS, *VERBS) for f in numbers(cls)]
NAMES = [f"{cls.__name__}.{f.name}" for cls, f in ALL]


def test_no_command_with_numbers_is_left_out():
    """A new class of settings goes into the lists above."""
    found = [Settings]
    for cls in found:
        found += cls.__subclasses__()
    listed = {*GROUPS, *PARTS, *VERBS}
    ours = [cls for cls in found if cls.__module__.startswith("lm.") and numbers(cls)]
    assert {cls.__name__ for cls in ours if not cls.__subclasses__()} <= {
        cls.__name__ for cls in listed
    }
    assert len(ALL) > 100


@pytest.mark.parametrize(("cls", "f"), ALL, ids=NAMES)
def test_a_number_is_allowed_at_its_limits_and_refused_beyond_them(cls, f):
    low, high = f.metadata["low"], f.metadata["high"]
    assert -MOST <= low <= high <= 1e38 and math.isfinite(high)
    for value in limits(f):
        assert ": must be" not in refusal(cls, f.name, kind(f)(value))  # but of what goes with it
    if kind(f) is int:
        beyond = [low - 1, high + 1, 10**30, -(10**30)]
    else:
        beyond = [math.nextafter(low, -math.inf), math.nextafter(high, math.inf)]
        beyond += [math.nan, math.inf, -math.inf, 1e300, -1e300]
    for value in beyond:
        if value == 0 and f.metadata.get("zero"):
            continue
        text = refusal(cls, f.name, value)
        assert text.startswith(f"{cls.key(f.name)}={str(value)[:40]}: must be ")
        assert "\n" not in text


# ------------------------------------------------------------------------- that the limits work

V, T = 40, 8
IDS = np.random.default_rng(0).integers(0, V, 300).astype(np.uint16)
SMALL = {
    "n_layer": 1, "n_head": 2, "n_embd": 8, "n_hidden": 8, "window": 2, "n_mlp": 8, "order": 3,
}  # fmt: skip
SIZES = {*SMALL, "n_kv_head", "context_len", "base_width", "base_depth", "base_n_head"}
LEARNING = [(cls, f) for cls, f in ALL if cls in config.options("model").values()]
LEARNING += [(cls, f) for cls, f in ALL if issubclass(cls, config.OptimizerConfig)]
LEARNING += [(cls, f) for cls, f in ALL if issubclass(cls, config.ScheduleConfig)]
CASES = [(cls, f.name, value) for cls, f in LEARNING for value in limits(f)]
RATES = ("lr", "adamw_lr", "lr_scale")  # a run may try how high one can be
CASES = [case for case in CASES if case[1] not in SIZES or case[2] <= 16]


def run_of(cls: type[Settings], name: str, value: float) -> config.Config:
    """A tiny run in which one setting has this value, those that it goes with moved along."""
    parts = {"corpus": config.PydocsConfig(), "tokenizer": config.ByteConfig()}
    parts["model"] = config.TransformerConfig(context_len=T, n_layer=1, n_head=2, n_embd=8)
    parts["optimizer"] = config.AdamWConfig(weight_decay=0.0)
    parts["schedule"] = config.CosineConfig()
    changed = {name: value}
    if cls.group == "model":
        own = {f.name for f in numbers(cls)}
        changed = {"context_len": T} | {k: v for k, v in SMALL.items() if k in own} | changed
        if name in ("n_head", "n_kv_head") and value:
            changed |= {"n_embd": 2 * int(value), "n_head": int(value)}
        if name == "n_embd" and "n_head" in own:
            changed |= {"n_head": 1, "positions": "learned"}
    if cls.group == "optimizer" and name != "weight_decay":
        changed["weight_decay"] = 0.0
    if name == "weight_decay":
        changed["lr"] = min(1e-3, 1 / max(value, 1))
    if name in ("warmup", "decay") and cls is config.WSDConfig:
        changed = {"warmup": 0.0, "decay": 0.0} | changed
    parts[cls.group] = cls(**changed)
    train = config.TrainConfig(batch_size=2, steps=3, threads=1)
    return config.Config(**parts, train=train)


@pytest.mark.parametrize(
    ("cls", "name", "value"), CASES, ids=[f"{c.__name__}.{n}={v:g}" for c, n, v in CASES]
)
def test_a_model_learns_and_speaks_at_every_limit(cls, name, value):
    cfg = run_of(cls, name, value)
    torch.manual_seed(0)
    model = cfg.model.build(V)
    model.fit(IDS)
    if model.trainable:
        optimizers = cfg.optimizer.build(model)
        batches = Batches(IDS, 2, model.context_len, 0)
        update = Update(model, optimizers, batches, cfg, torch.device("cpu"), torch.float32)
        for step in range(3):
            scale = cfg.schedule.build((step + 1) / 3)
            assert 0 <= scale <= 1
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["base_lr"] * scale
            finite = math.isfinite(sum(update.step(step).values()))
            assert finite or (name in RATES and value > 1)
        assert name in RATES or all(p.isfinite().all() for p in model.parameters())
    assert len(list(generate(model, [[1, 2]], max_tokens=3))) == 3


AWAY = {"n_proc", "parts", "threads", "micro_batch", "batch_size", "tokens", "flops", "seconds"}


def train_words(end: str) -> list[str]:
    """train.KEY=LIMIT for all that can stand at its lower, or upper, limit in one run."""
    words = [
        f"train.{f.name}={f.metadata[end]}"
        for f in numbers(config.TrainConfig)
        if f.name not in (*AWAY, "steps", "sample_len", "eval_every")
    ]
    return [*words, "train.spike_window=20"] if end == "low" else words


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_run_ends_with_every_number_of_train_at_a_limit(end, trained):
    out = trained("model=bigram", *train_words(end), "train.sample_len=1", "train.steps=3")
    last = rows(out)[-1]
    assert last["step"] == 3 and math.isfinite(last["val/bpb"])


@pytest.mark.parametrize(
    "words",
    [
        ("train.seconds=5e-324",),
        ("train.flops=5e-324", *TINY_TRANSFORMER),
        ("train.tokens=1",),
        ("train.batch_size=1", "train.tokens=20"),
        ("train.steps=1", "seed=4294967295"),
        ("train.steps=1", "train.threads=64"),
    ],
)
def test_a_budget_at_its_least_trains_once_or_twice(words, trained):
    model = () if TINY_TRANSFORMER[0] in words else ("model=bigram",)
    assert rows(trained(*model, *words))[-1]["step"] in (1, 2)


def test_settings_that_go_together_have_a_limit_together(cfg):
    for words, text in {
        "train.batch_size=1048576 model.context_len=1048576": "at most 134,217,728, lower one",
        "optimizer=adamw optimizer.weight_decay=1000 optimizer.lr=0.1": "takes 100 times",
        "optimizer=adamw model=bigram optimizer.weight_decay=1000": "takes 30 times the weights",
        "optimizer.weight_decay=2 optimizer.lr=1": "takes 2 times the weights",
        "optimizer=muon optimizer.weight_decay=60": "decay=60.0 at a rate of 0.03",
    }.items():
        with pytest.raises(ConfigError, match=text):
            cfg(*words.split())
    cfg("optimizer.weight_decay=1000", "optimizer.lr=1e-3")


def test_what_this_machine_cannot_start_is_refused_before_it_crashes(monkeypatch):
    """100,000 threads were a segmentation fault."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(ValueError, match=r"train\.threads=1024: .* 2 cores and takes at most 64"):
        devices.configure(1024, deterministic=True)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match=r"train\.n_proc=2000: .* at most 16 processes"):
        ranks.check_backend("cpu", 2000)
    monkeypatch.setattr("os.cpu_count", lambda: 512)
    assert ranks.check_backend("cpu", 1024) == "gloo"


@pytest.mark.parametrize("name", ["max_tokens", "temperature", "top_k", "top_p", "seed"])
def test_a_sample_is_made_at_every_limit(name):
    model = config.GRUConfig(n_embd=4, n_hidden=4, context_len=T).build(V)
    (f,) = (f for f in numbers(commands.SampleConfig) if f.name == name)
    for value in limits(f):
        steps = generate(model, [[1]], **({"max_tokens": 3} | {name: f.type(value)}))
        assert len(list(itertools.islice(steps, 3))) in (1, 3)


def test_the_limits_that_security_md_names_are_those_of_the_settings():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("| S21 ")]
    for name in re.findall(r"`train\.(\w+)`", line):
        (f,) = [f for f in dataclasses.fields(config.TrainConfig) if f.name == name]
        assert f"{f.metadata['high']:,} " in line, name
