"""What a run says of itself before its first step: model, budget, processes, sources.

for line in first_lines.lines(cfg, model, batches, budget, device, dtype):
    log.info(line)
"""

import torch

from lm.config import Config, MixConfig
from lm.data.batches import Batches
from lm.data.mixed_batches import MixedBatches
from lm.models import parametrization
from lm.models.base import LanguageModel
from lm.record.state import Budget
from lm.system import ranks


def lines(
    cfg: Config,
    model: LanguageModel,
    batches: Batches,
    budget: Budget,
    device: torch.device,
    dtype: torch.dtype,
) -> list[str]:
    """The lines of the log, in the order in which they are read."""
    name = str(dtype).removeprefix("torch.")
    size = f"{model.n_params():,} parameters on {device.type} in {name}"
    line = f"{'model':<10} {cfg.model.name:<12} {size}"
    found = [line + of_budget(batches, budget) if model.trainable else line]
    if model.trainable and (ranks.n_proc() > 1 or cfg.train.parts):
        found.append(of_bits(cfg.train.parts, device))
    if parametrization.is_on(cfg.model):
        found.append(parametrization.describe(model))
    if isinstance(cfg.corpus, MixConfig):
        found += of_sources(cfg.corpus, model, batches, budget)
    return found


def of_budget(batches: Batches, budget: Budget) -> str:
    """What follows the model's size on its line: how long it is trained."""
    if budget.seconds:
        return f"; {budget.seconds:g} s of training"
    epochs = budget.steps * batches.batch_size / batches.n_windows
    return f"; {budget.steps:,} steps of {batches.tokens:,} tokens, {epochs:.1f} epochs"


def of_bits(n_parts: int, device: torch.device) -> str:
    """On which numbers of processes a run has the same bits."""
    n_proc = ranks.n_proc()
    n_threads = torch.get_num_threads()
    each = f"{n_threads} CPU thread{'s' if n_threads > 1 else ''} each"
    if not n_parts:
        return (
            f"{'bits':<10} {'of ' + str(n_proc):<12} the same on {n_proc} processes of {each}, and "
            "no other number; train.parts=8 lifts that"
        )
    counts = ", ".join(str(1 << i) for i in range(n_parts.bit_length()))
    text = f"the same on {' or '.join(counts.rsplit(', ', 1))} processes of {each}"
    if device.type != "cpu":
        text = f"added in one order on {counts} processes; shown to be the same on CPUs alone"
    return f"{'bits':<10} {f'{n_parts} parts':<12} {text}"


def of_sources(
    corpus: MixConfig, model: LanguageModel, batches: Batches, budget: Budget
) -> list[str]:
    """A line for each source of a mix: its share of the windows, and how often it is read."""
    if not model.trainable:
        return [f"{'weights':<10} {'of no use':<12} this model counts every part once, as it is"]
    found = []
    epochs = {}
    if isinstance(batches, MixedBatches) and not budget.seconds:
        epochs = batches.epochs(budget.steps)
    for name, weight in corpus.weights.items():
        line = f"{'source':<10} {name:<12} {weight:.4g} of the windows"
        if name in epochs:
            line += f", {epochs[name]:.1f} epochs"
        found.append(line)
    return found
