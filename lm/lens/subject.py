"""The model that the lens looks at: of a run, or untrained from the configuration alone."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lm import config
from lm.config import Config
from lm.data import pipeline
from lm.models.base import LanguageModel
from lm.record import checkpoint, ownership
from lm.record.run import Run
from lm.system import files, seeds
from lm.system.tensors import load_tensors
from lm.tokenizers import Tokenizer


@dataclass
class Subject:
    """A model to look at, and where it comes from."""

    model: LanguageModel
    tokenizer: Tokenizer
    cfg: Config
    name: str  # of the run; "untrained" or "counted" for a model from the configuration alone
    home: Path  # the folder of the page where no other is named
    step: int = 0
    checkpoints: list[tuple[int, Path]] = field(default_factory=list)  # by step, oldest first
    train_ids: np.ndarray | None = None  # (n,) for the counts beside the model
    missing: str = ""  # why there are none

    @classmethod
    def of_run(cls, name: str, which: str, trust: bool = False) -> "Subject":
        """The model of the run `name` at its checkpoint `which`; ValueError if there is none.

        `trust` reads the text that the settings of a run from elsewhere name.
        """
        run = Run.open(name)
        subject = cls(
            run.model(which), run.tokenizer, run.cfg, files.public(str(run.path)), run.path
        )
        subject.step = int(run.checkpoint(which).name.removeprefix("step_"))
        for step in checkpoint.steps(run.path):
            subject.checkpoints.append((step, checkpoint.folder(run.path, step)))
        try:
            ownership.check_reads(run.path, run.cfg, trust)
            with pipeline.quietly():
                prepared = pipeline.prepare(run.cfg)
        except (ValueError, OSError) as error:  # the text may lie on another machine
            subject.missing = _public(" ".join(str(error).split()), run.cfg)
            return subject
        if prepared.tokenizer.fingerprint == run.tokenizer.fingerprint:
            subject.train_ids = prepared.train
        else:
            subject.missing = "the text of this run has changed since"
        return subject

    @classmethod
    def untrained(cls, cfg: Config) -> "Subject":
        """The model as training would start with it; one that counts has counted already."""
        prepared = pipeline.prepare(cfg)
        model = first_weights(cfg, prepared.tokenizer.vocab_size)
        model.fit(prepared.train)  # nothing for a model that learns by gradient
        name = "untrained" if model.trainable else "counted"
        return cls(model, prepared.tokenizer, cfg, name, Path(), train_ids=prepared.train)


def _public(text: str, cfg: Config) -> str:
    """A message for the page, which may leave this machine: see `files.public` of its paths."""
    for key, value in config.flat(cfg).items():
        if config.is_path(key):
            for path in filter(None, value if isinstance(value, list) else [value]):
                text = text.replace(str(path), files.public(str(path)))
    here, home = os.getcwd(), os.path.expanduser("~")
    if here != "/" and not Path(home).is_relative_to(here):
        text = re.sub(rf"{re.escape(here)}(?![\w.-])", ".", text.replace(f"{here}/", ""))
    text = text.replace(home, "~")
    return re.sub(r"(?<![\w~./])/[^\s,;:'\"]+", lambda path: files.public(path[0]), text)


def first_weights(cfg: Config, vocab_size: int) -> LanguageModel:
    """The model as training would start with it."""
    torch.manual_seed(seeds.seed(cfg.seed, "init"))
    return cfg.model.build(vocab_size).eval()


def embedding_tables(subject: Subject) -> Iterator[tuple[int, Tensor]]:
    """The step and the embedding table (V, C) at each checkpoint up to the model looked at.

    The first is that before training, unless the run began with weights from elsewhere.
    """
    model = subject.model
    name = embedding_name(model)
    if name is None:
        return
    V = model.vocab_size  # rows above it stand for no token
    if subject.checkpoints:
        if not subject.cfg.init_from:
            start = first_weights(subject.cfg, V)
            yield 0, start.get_parameter(name).detach()[:V]
        for step, folder in subject.checkpoints:
            if 0 < step < subject.step:
                yield step, load_tensors(folder / "model.safetensors")[name][:V]
    yield subject.step, model.get_parameter(name).detach()[:V]


def embedding_name(model: LanguageModel) -> str | None:
    """The parameter with a row for every token, if the model has one."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings >= model.vocab_size:
            return f"{name}.weight"
    return None
