"""Where the weights do not fit, the largest is named, before any memory is taken."""

import os
import resource
import sys

import numpy as np
import pytest
import torch

from lm import config
from lm.data.batches import Batches
from lm.optim import footprint
from lm.system import memory
from lm.system.errors import OutOfMemoryError
from lm.update import Update
from tests.helpers import TINY_TRANSFORMER

CPU = torch.device("cpu")


def skeleton(cfg: config.Config, vocab_size: int):
    return memory.skeleton(lambda: cfg.model.build(vocab_size))


BPE = "tokenizer=bpe"
ADAMW = "optimizer=adamw"  # weights, gradients and two averages; Muon has one


@pytest.mark.parametrize(
    ("words", "vocab_size", "parts"),
    [
        ((BPE, "model=bigram"), 30_000,
         ["900,000,000 weights of model=bigram take 14.4 GB", "table.weight, is 30,000 x 30,000",
          ": lower tokenizer.vocab_size"]),
        (("tokenizer=char", "model=transformer", "model.n_embd=4096", "model.n_layer=2"), 20_000,
         ["wte.weight, is 20,000 x 4,096: lower model.n_embd or model.n_layer"]),
        (("tokenizer=char", "model=bigram"), 30_000, ["give tokenizer=bpe with a smaller"]),
        ((BPE, "model=mlp"), 99_999_999,
         ["head.weight, is 99,999,999 x 256: lower tokenizer.vocab_size or model.n_hidden"]),
        ((BPE, "model=gpt2"), 99_999_999,
         ["wte.weight, is 99,999,999 x 768: lower tokenizer.vocab_size or model.n_embd"]),
        ((BPE, "model=transformer", "model.n_embd=65536", "model.n_layer=1024"), 500,
         ["blocks.0.", "262,144 x 65,536: lower model.n_embd or model.n_layer"]),
        ((BPE, "model=gru", "model.n_hidden=1048576"), 500,
         ["52791.5 GB", ": lower model.n_hidden"]),
        ((BPE, "model=bigram", "optimizer=muon"), 30_000, ["take 10.8 GB in training"]),
    ],
)  # fmt: skip
def test_the_largest_weight_and_what_makes_it_smaller_are_named(
    words, vocab_size, parts, cfg, monkeypatch
):
    made = cfg(ADAMW, *words)
    if getattr(made.model, "n_layer", 1) > 2:  # a thousand layers take a while to lay out
        made.model.n_layer = 2
    model = skeleton(made, vocab_size)
    monkeypatch.setattr(memory, "room", lambda device: 5 * 10**9)
    with pytest.raises(OutOfMemoryError) as caught:
        footprint.check(model, made, CPU)
    text = str(caught.value)
    assert text.startswith("out of memory: the ") and "and there are 5.0 GB" in text
    assert "\n" not in text
    for part in parts:
        assert part in text


def test_a_model_that_fits_is_not_refused(cfg, monkeypatch):
    made = cfg(ADAMW, "model=bigram", "tokenizer=byte")
    model = skeleton(made, 100)
    monkeypatch.setattr(memory, "room", lambda device: 4 * 4 * 100 * 100)
    footprint.check(model, made, CPU)
    footprint.check(None, made, CPU)  # it computes as it is made
    monkeypatch.setattr(memory, "room", lambda device: 4 * 4 * 100 * 100 - 1)
    with pytest.raises(OutOfMemoryError):
        footprint.check(model, made, CPU)


def test_the_limit_of_a_shell_counts(monkeypatch):
    there = memory.room(CPU)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (3 << 30, resource.RLIM_INFINITY))
    assert 0 <= memory.room(CPU) < min(there, 3 << 30)


@pytest.mark.parametrize("words", [("model=bigram",), TINY_TRANSFORMER])
def test_a_step_without_memory_names_the_weights_where_they_take_most_of_it(words, cfg, tiny):
    """The advice was train.micro_batch, though no batch was the cause."""
    made = cfg(*tiny, *words)
    model = made.model.build(257)
    batches = Batches(np.arange(100), 4, 16, 0)
    step = Update(model, [], batches, made, CPU, torch.float32)
    assert step.too_large(0).startswith("out of memory at step 0: 4 windows of")
    rest = 3 * memory.weights_in(model, 1)  # gradients and two averages
    step.room = 2 * rest
    assert "4 windows of" in step.too_large(0)
    step.room = 2 * rest - 1
    text = step.too_large(0)
    assert f"step 0: the {model.n_params():,} weights" in text and "micro_batch=2" in text
    step.micro_batch = 1
    assert "micro_batch" not in step.too_large(0)
    step.micro_batch, step.n_parts = 0, 2  # of two windows each: passes of their own
    assert "train.parts=4" in step.too_large(0) and "micro_batch" not in step.too_large(0)
    step.n_parts = 4
    assert "train.parts" not in step.too_large(0)


def test_other_errors_stay_what_they_are(cfg):
    made = cfg(ADAMW, "model=bigram", "tokenizer=byte")
    model = skeleton(made, 100)
    with pytest.raises(RuntimeError, match="something else"), footprint.named(model, made, CPU):
        raise RuntimeError("something else")
    with pytest.raises(OutOfMemoryError, match="model=bigram"), footprint.named(model, made, CPU):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")


def test_where_a_system_cannot_be_asked_for_its_memory_there_is_no_limit(monkeypatch):
    """On Windows each run ended here: os.sysconf is not there."""
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert memory.room(CPU) == sys.maxsize
