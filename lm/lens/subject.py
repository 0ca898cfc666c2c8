"""The model that the lens looks at: of a run, or untrained from the configuration alone."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lm import pipeline
from lm.config import Config
from lm.models.base import LanguageModel
from lm.record import checkpoint
from lm.record.run import Run
from lm.system import seeds
from lm.system.tensors import load_tensors


@dataclass
class Subject:
    """The model to look at, and where it comes from."""

    model: LanguageModel
    tokenizer: Any
    cfg: Config
    name: str  # of the run; "untrained" for a model from the configuration alone
    home: Path  # where the page goes unless told otherwise
    step: int = 0
    weights: list[tuple[int, Path]] = field(default_factory=list)  # checkpoints, oldest first
    train_ids: np.ndarray | None = None  # (n,) for the counts beside the model
    missing: str = ""  # why there are none

    @classmethod
    def of_run(cls, name: str, which: str) -> "Subject":
        run = Run.open(name)
        step = int(run.checkpoint(which).name.removeprefix("step_"))
        found = [(s, checkpoint.folder(run.path, s)) for s in checkpoint.steps(run.path)]
        subject = cls(
            run.model(which), run.tokenizer, run.cfg, str(run.path), run.path, step, found
        )
        try:
            with pipeline.quietly():
                prepared = pipeline.prepare(run.cfg)
        except (ValueError, OSError) as error:  # the text may lie on another machine
            subject.missing = " ".join(str(error).split())
            return subject
        if prepared.tokenizer.fingerprint == run.tokenizer.fingerprint:
            subject.train_ids = prepared.train
        else:
            subject.missing = "the text of this run has changed since"
        return subject

    @classmethod
    def untrained(cls, cfg: Config) -> "Subject":
        prepared = pipeline.prepare(cfg)
        model = first_weights(cfg, prepared.tokenizer.vocab_size)
        model.fit(prepared.train)  # counts; nothing for a model that learns by gradient
        name = "untrained" if model.trainable else "counted"
        return cls(model, prepared.tokenizer, cfg, name, Path(), train_ids=prepared.train)


def first_weights(cfg: Config, vocab_size: int) -> LanguageModel:
    """The model as training would start with it."""
    torch.manual_seed(seeds.seed(cfg.seed, "init"))
    return cfg.model.build(vocab_size).eval()


def tables(subject: Subject) -> Iterator[tuple[int, Tensor]]:
    """The embedding table (V, C) at each step it is known of, the one looked at last."""
    model = subject.model
    name = embedding_name(model)
    if name is None:
        return
    V = model.vocab_size  # rows above it stand for no token
    if subject.weights:
        start = first_weights(subject.cfg, model.vocab_size)
        if not getattr(subject.cfg, "init_from", ""):
            yield 0, start.get_parameter(name).detach()[:V]
        for step, folder in subject.weights:
            if 0 < step < subject.step:
                yield step, load_tensors(folder / "model.safetensors")[name][:V]
    yield subject.step, model.get_parameter(name).detach()[:V]


def embedding_name(model: LanguageModel) -> str | None:
    """The parameter with a row for every token, if the model has one."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings >= model.vocab_size:
            return f"{name}.weight"
    return None
