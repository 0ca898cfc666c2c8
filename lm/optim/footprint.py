"""What training takes of the memory besides its batches: weights, gradients, optimizer state.

footprint.check(model, cfg, device)
"""

import contextlib
from collections.abc import Iterator

import torch

from lm.config import Config
from lm.models.base import LanguageModel
from lm.system import devices, memory
from lm.system.errors import OutOfMemoryError
from lm.system.memory import gigabytes

WIDTHS = ("n_embd", "n_hidden", "n_mlp")  # settings that models have


def n_copies(cfg: Config) -> int:
    """Numbers of the size of the weights that training holds for each of them."""
    copies = cfg.optimizer.copies
    if cfg.train.parts:  # their sums on the way, and what the processes exchange
        copies += (cfg.train.parts // cfg.train.n_proc).bit_length()
        copies += 2 if cfg.train.n_proc > 1 else 0
    return copies


def n_bytes(model: LanguageModel, cfg: Config) -> int:
    """Bytes that the weights take in training, in each process: under train.shard a share."""
    whole = memory.weights_in(model, n_copies(cfg))
    if cfg.train.shard:  # a model is made whole before it is divided
        return max(memory.weights_in(model, 1), whole // cfg.train.n_proc)
    return whole


def check(model: LanguageModel | None, cfg: Config, device: torch.device) -> None:
    """Raise OutOfMemoryError if the weights of a model that is not made yet are too many to train.

    The system might end the process without a word. None: its shapes are not known.
    """
    room = memory.room(device)
    if model is not None and model.trainable and n_bytes(model, cfg) > room:
        raise OutOfMemoryError(f"out of memory: {describe(model, cfg, room)}")


@contextlib.contextmanager
def named(model: LanguageModel | None, cfg: Config, device: torch.device) -> Iterator[None]:
    """Inside, what runs out of memory raises OutOfMemoryError, which names the weights."""
    room = memory.room(device)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if model is None or not model.trainable or not devices.is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"out of memory: {describe(model, cfg, room)}") from None


def describe(model: LanguageModel, cfg: Config, room: int) -> str:
    """That the weights are too many for `room` bytes, which is the largest, and what to lower."""
    name, shape = memory.largest(model)
    size = " x ".join(f"{n:,}" for n in shape)
    return (
        f"the {model.n_params():,} weights of model={cfg.model.name} take "
        f"{gigabytes(n_bytes(model, cfg))} in training, with gradients and the optimizer's "
        f"averages, and there are {gigabytes(room)}; the largest, {name}, is {size}: "
        f"{_way_out(model, cfg, name, shape)}"
    )


def _way_out(model: LanguageModel, cfg: Config, name: str, shape: torch.Size) -> str:
    """The settings that make the largest parameter smaller."""
    if name == "wpe.weight":  # one row for each position
        return "lower model.context_len or model.n_embd"
    settings = [f"model.{width}" for width in WIDTHS if getattr(cfg.model, width, 0) in shape]
    is_table = any(n in (model.vocab_size, model.vocab_size + 1) for n in shape)  # 1: no token
    if is_table and 4 * shape.numel() > model.n_params():  # and not the many blocks
        if not hasattr(cfg.tokenizer, "vocab_size"):
            return "give tokenizer=bpe with a smaller tokenizer.vocab_size"
        settings.insert(0, "tokenizer.vocab_size")
    elif getattr(cfg.model, "n_layer", 1) > 1:
        settings.append("model.n_layer")
    return f"lower {' or '.join(settings)}" if settings else "choose a smaller model"
