"""One training step of a run, before and after: its batch, what each prediction cost, its update.

    found = training_step.of(subject)     # {"ids": ..., "nats": ..., "loss": 2.31, ...}

The weights of the model that is looked at stay as they are.
"""

import copy
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from lm.config import MixConfig, ShardsConfig
from lm.data.batches import Batches
from lm.lens.subject import Subject
from lm.lens.views import Values, quantized
from lm.optim.clip import clip_gradients
from lm.optim.contract import build_optimizers
from lm.optim.schedule import set_rates, update_scale
from lm.record import checkpoint
from lm.record.state import TrainState
from lm.setup import make_budget
from lm.update import Update

MAX_FLOPS = 1e12  # of a step: some seconds on two cores
MAX_TOKENS = 16_384  # of a batch: 0.2 MB on the page


def of(subject: Subject) -> Values:
    """The batch that follows the checkpoint, and one update with it; or why there is none.

    A run that is over has no next rate: the update then has that of the middle of the run.
    """
    why_not = _why_not(subject)
    if why_not or subject.train_ids is None:
        return {"missing": why_not}
    cfg = subject.cfg
    model = copy.deepcopy(subject.model).train()
    T = model.context_len
    optimizers = build_optimizers(cfg.optimizer, model)
    state = TrainState()
    folder = dict(subject.checkpoints).get(subject.step)
    if folder is not None:
        try:
            state = checkpoint.read_record(folder).state
            checkpoint.load_optimizers(folder, optimizers)
        except (ValueError, OSError):  # the rest of the page needs none of it
            return {"missing": "the optimizer's state of this checkpoint cannot be read"}
    budget = make_budget(cfg, model)
    is_over = budget.progress(state) >= 1
    scale = cfg.schedule.build(0.5)  # where the run is over there is no next rate
    if not is_over:
        after_update = budget.progress_after_update(state)
        scale = update_scale(cfg.schedule, budget.progress(state), after_update)
    rates = set_rates(optimizers, scale)
    batches = Batches(subject.train_ids, cfg.train.batch_size, T, cfg.seed)
    number = state.step + state.skipped_batches
    x, y = batches[number]  # (B, T)
    with torch.no_grad():
        nats = subject.model.nats(x, y)  # (B, T)
    update = Update(model, optimizers, batches, cfg, torch.device("cpu"), torch.float32)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        update.seed_dropout(number, 0)
        update.gradients(x, y)
    clip = cfg.train.clip
    norm = clip_gradients(model.parameters(), clip)
    if not (nats.isfinite().all() and norm.isfinite()):
        return {"missing": "loss or gradient is infinite or not a number, so the step is skipped"}
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for optimizer in optimizers:
        optimizer.step()
    with torch.no_grad():
        after = model.eval().nats(x, y).mean()
    return {
        "number": number,
        "is_over": is_over,
        "ids": torch.cat([x, y[:, -1:]], dim=1).tolist(),  # (B, T + 1)
        "nats": quantized(nats),
        "loss": float(nats.mean()),
        "loss_after": float(after),
        "norm": float(norm),
        "clip": clip,
        "optimizers": [type(optimizer).__name__ for optimizer in optimizers],
        "rates": list(rates.values()),
        "parameters": _moved(weights, gradients, model.named_parameters()),
    }


def _why_not(subject: Subject) -> str:
    model, cfg = subject.model, subject.cfg
    if subject.train_ids is None:
        return subject.missing
    if not model.trainable:
        return "this model counts the training text once and takes no steps"
    if isinstance(cfg.corpus, (MixConfig, ShardsConfig)):
        return "the rows of a batch come from several texts or shards in turn"
    if len(subject.train_ids) <= model.context_len:
        return "the training text is shorter than one row of a batch"
    n_tokens = cfg.train.batch_size * model.context_len
    if n_tokens > MAX_TOKENS:
        rows = MAX_TOKENS // model.context_len
        other = f"train.batch_size={rows}" if rows else f"model.context_len={MAX_TOKENS}"
        return (
            f"a batch has {n_tokens:,} tokens, and {MAX_TOKENS:,} fit here; "
            f"one of a run with {other} does"
        )
    flops = n_tokens * model.flops_per_token()
    if flops > MAX_FLOPS:
        return (
            f"a step takes {flops:.1e} operations, too many to do for a page; "
            "a smaller train.batch_size or model takes fewer"
        )
    return ""


def _moved(
    before: dict[str, Tensor],
    gradients: dict[str, Tensor],
    parameters: Iterable[tuple[str, Tensor]],
) -> list[Values]:
    """For each parameter its size and that of its gradient and change, as roots of mean squares,
    and the one number that moved most."""
    rows = []
    for name, parameter in parameters:
        if name not in gradients:
            continue
        change = parameter.detach() - before[name]
        place = int(change.abs().argmax())
        index = np.unravel_index(place, tuple(change.shape))  # torch's imports sympy
        rows.append(
            {
                "name": name,
                "shape": list(change.shape),
                "size": _size(before[name]),
                "gradient": _size(gradients[name]),
                "change": _size(change),
                "index": [int(i) for i in index],
                "from": float(before[name].flatten()[place]),
                "slope": float(gradients[name].flatten()[place]),
                "to": float(parameter.detach().flatten()[place]),
            }
        )
    return rows


def _size(tensor: Tensor) -> float:
    return float(tensor.square().mean().sqrt())
