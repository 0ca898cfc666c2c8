"""Do settings carry over from a small model to a large one? A coordinate check (Yang et al. 2022,
https://arxiv.org/abs/2203.03466, appendix D.1).

    python -m lm.check transfer model=transformer
    python -m lm.check transfer model=llama optimizer=adamw widths=64,128,256 depths=2,4

Models of several widths, and of several depths, take a few steps on one batch. What a step changes
in each activation must not depend on the size: its slope over the size, both as logarithms, is 0.
The same is done without a base, where slopes must differ from 0, or the check could not tell.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lm import metrics
from lm.config import Config, ModelConfig, TransformerConfig
from lm.launch import compose
from lm.models.base import LanguageModel
from lm.optim import horizon
from lm.optim.clip import clip_gradients
from lm.optim.contract import build_optimizers
from lm.optim.schedule import set_rates
from lm.report import figures
from lm.settings.commands import TransferConfig
from lm.system import devices, seeds
from lm.system.console import Console
from lm.system.errors import ConfigError, no_code_for
from lm.system.streams import check_output

VOCAB_SIZE = 256
B, T = 4, 16  # fewer tokens than the least width: the theory is of a width above all else
# Of the settings' rate: at all of it ten steps move activations by more than their own size, and
# at less the noise of initial weights, which fades with the size, is more of what changes.
RATE_SHARE = 1 / 2
FLAT = 0.1  # largest slope that counts as 0: what the randomness of 64 numbers leaves

Sizes = dict[str, float]  # root mean square of each activation, by its name


@dataclass
class Walk:
    """One model: its activations before the first step, and their changes after some steps."""

    start: Sizes
    changes: dict[int, Sizes] = field(default_factory=dict)  # by the number of steps


@dataclass
class Sweep:
    """Models along one axis, with or without a base."""

    axis: str  # width or depth
    carried: bool  # whether settings are carried over from the smallest
    sizes: list[int]
    walks: list[Walk] = field(default_factory=list)

    def slopes(self) -> dict[str, dict[str, float]]:
        """Of each activation, the slope of its size at the start and of its changes."""
        names = [n for n in self.walks[0].start if all(n in walk.start for walk in self.walks)]
        found: dict[str, dict[str, float]] = {}
        for name in names:
            found[name] = {}
            if name != "logits":  # they begin near 0, the nearer the wider: theory says -1/2
                found[name]["start"] = self._slope([walk.start[name] for walk in self.walks])
            for step in self.walks[0].changes:
                values = [walk.changes[step][name] for walk in self.walks]
                found[name][f"step {step}"] = self._slope(values)
        return found

    def _slope(self, values: Sequence[float]) -> float:
        if not all(0 < value < math.inf for value in values):
            return math.nan
        return float(np.polyfit(np.log(self.sizes), np.log(values), 1)[0])


def command(cfg: TransferConfig) -> None:
    """Print the slopes, write the plot; exit code 1 if a slope is off."""
    check_output(cfg.out)
    if Path(cfg.out).suffix not in figures.MARKS:
        raise ConfigError(f"out={cfg.out}: give a name that ends in {' or '.join(figures.MARKS)}")
    figures.check_own(Path(cfg.out))
    run = horizon.resolved(compose.compose_run(cfg.overrides or ["model=transformer"]))
    logging.getLogger().setLevel(logging.WARNING)
    devices.configure(run.train.threads, run.train.deterministic)
    console = Console(highlight=False, soft_wrap=True)
    sweeps = []
    for sweep in examine(run, cfg):
        sweeps.append(sweep)
        print_sweep(console, sweep)
    draw(sweeps, Path(cfg.out), cfg.steps)
    console.print(f"\nthe slopes as a picture: {cfg.out}")
    problems = verdict(sweeps)
    console.print("all is well" if not problems else "\n".join(problems))
    if problems:
        raise SystemExit(1)


def examine(run: Config, cfg: TransferConfig) -> Iterator[Sweep]:
    """Each sweep as it is done; ConfigError, before anything is trained, where one cannot be."""
    for sweep in plan(run.model, cfg):
        for size in sweep.sizes:
            model = resized(run.model, cfg, sweep, size)
            sweep.walks.append(mean_walk(run, model, sweep.axis, cfg))
        yield sweep


def plan(model: ModelConfig, cfg: TransferConfig) -> list[Sweep]:
    """The sweeps that this model allows; ConfigError where it cannot be widened."""
    widths = _numbers("widths", cfg.widths)
    depths = _numbers("depths", cfg.depths) if isinstance(model, TransformerConfig) else []
    sweeps = [Sweep("width", carried, widths) for carried in (True, False)]
    if depths:
        sweeps += [Sweep("depth", carried, depths) for carried in (True, False)]
    for sweep in sweeps:  # all of them are possible, or nothing is trained
        for size in sweep.sizes:
            resized(model, cfg, sweep, size)
    return sweeps


def resized(model: ModelConfig, cfg: TransferConfig, sweep: Sweep, size: int) -> ModelConfig:
    """The settings of a model of that width or depth, with the smallest of its sweep as the base.

    Heads keep their width and grow in number, or with heads=fixed the other way round.
    """
    width = _numbers("widths", cfg.widths)[0] if sweep.axis == "depth" else size
    key = model.width_keys[0]
    own = getattr(model, key, 0)
    if not own:
        raise ConfigError(f"model={model.name} has no {key}: it cannot be widened")
    changed: dict[str, int] = {"base_width": 0, "base_depth": 0}
    names = [name for name in model.width_keys if getattr(model, name, 0)]
    if isinstance(model, TransformerConfig):
        changed["base_n_head"] = 0
        changed["n_layer"] = size if sweep.axis == "depth" else _numbers("depths", cfg.depths)[0]
        if cfg.heads == "grow":
            names += ["n_head", "n_kv_head"]
        elif cfg.heads != "fixed":
            raise no_code_for("heads", cfg.heads)
    for name in names:
        value, rest = divmod(getattr(model, name) * width, own)
        if rest or (name == "n_head" and not value):
            raise ConfigError(
                f"widths={width}: model.{name}={getattr(model, name)} at model.{key}={own} would "
                "be no whole number; give other widths="
            )
        changed[name] = value
    here = replace(model, **changed)
    if not sweep.carried:
        return here
    if sweep.axis == "depth":
        return replace(here, base_depth=sweep.sizes[0])
    based = {"base_width": sweep.sizes[0]}
    if isinstance(here, TransformerConfig):
        based["base_n_head"] = here.n_head
        if cfg.heads == "grow":
            based["base_n_head"] = here.n_head * sweep.sizes[0] // size
    return replace(here, **based)


def mean_walk(run: Config, model: ModelConfig, axis: str, cfg: TransferConfig) -> Walk:
    """The walk of a model, its sizes as root mean squares over cfg.seeds initialisations.

    A wider one is spared some of them: more of its own numbers are averaged, at more cost.
    """
    least = _numbers("widths", cfg.widths)[0]
    n_seeds = max(1, cfg.seeds * least // getattr(model, model.width_keys[0]))
    walks = [walk(run, model, axis, cfg.steps, seed) for seed in range(n_seeds)]
    mean = Walk(_mean([w.start for w in walks]))
    for step in walks[0].changes:
        mean.changes[step] = _mean([w.changes[step] for w in walks])
    return mean


def walk(run: Config, cfg: ModelConfig, axis: str, n_steps: int, seed: int) -> Walk:
    """Train a new model on one batch; its activations on that batch as it goes."""
    torch.manual_seed(seeds.seed(run.seed + seed, "init"))
    model: LanguageModel = cfg.build(VOCAB_SIZE)
    if not model.trainable:
        raise ConfigError(f"model={cfg.name} counts: no step is taken")
    dtype = devices.matmul_dtype(run.train.dtype, model.device, model.low_precision)
    optimizers = build_optimizers(run.optimizer, model, dtype)
    random = torch.Generator().manual_seed(seeds.seed(run.seed + seed, "transfer"))
    ids = torch.randint(0, VOCAB_SIZE, (B, min(T, cfg.context_len) + 1), generator=random)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    first = activations(model, inputs, targets)
    found = Walk(_sizes(first, axis, model))
    set_rates(optimizers, RATE_SHARE)
    for step in range(1, n_steps + 1):
        metrics.next_token_loss(model(inputs), targets).backward()
        clip_gradients(model.parameters(), run.train.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step in steps_shown(n_steps):
            now = activations(model, inputs, targets)
            changes = {name: now[name] - before for name, before in first.items()}
            found.changes[step] = _sizes(changes, axis, model)
            if model.branches:  # all that reads a residual stream looks at it by its size
                stream = model.hidden[0]
                found.changes[step][stream] /= found.start[stream]
    return found


def steps_shown(n_steps: int) -> list[int]:
    """The steps after which changes are looked at: the first, the last and one between."""
    return sorted({1, max(1, round(math.sqrt(n_steps))), n_steps})


@torch.no_grad()
def activations(model: LanguageModel, ids: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What the hidden layers of a model give for ids (B, T), by their paths, and the logits (B, T)
    of the targets. The others' have more of the noise of initial weights, which fades with width.
    """
    seen: dict[str, Tensor] = {}
    handles = []

    def note(path: str) -> Callable[[nn.Module, object, object], None]:
        def hook(_: nn.Module, __: object, out: object) -> None:
            first = out[0] if isinstance(out, tuple) else out
            assert isinstance(first, Tensor), "a layer gives a tensor"
            seen[path] = first.detach().float()

        return hook

    for path, module in model.named_modules():
        is_inside = path.partition(".")[0] in model.hidden
        is_layer = isinstance(module, (nn.Linear, nn.RNNBase))
        is_block = path.count(".") == 1 and path.rpartition(".")[2].isdecimal()
        if is_inside and (is_layer or is_block):
            handles.append(module.register_forward_hook(note(path)))
    try:
        logits = model(ids)  # (B, T, V)
        seen["logits"] = logits.gather(-1, targets[..., None])[..., 0]
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _sizes(tensors: dict[str, Tensor], axis: str, model: LanguageModel) -> Sizes:
    """Root mean squares: of layers of one kind their mean, of blocks the last one.

    Over depths the ends of branches are left out: each of them is to shrink as 1 / depth.
    """
    squares: dict[str, list[float]] = defaultdict(list)
    for path, tensor in tensors.items():
        parts = [part for part in path.split(".") if not part.isdecimal()]
        square = tensor.square().mean().item()
        if axis == "depth" and path.endswith(model.branches or ("no such path",)):
            continue
        if len(parts) == 1 and parts[0] in model.hidden:
            squares[parts[0]] = [square]  # a later one takes the place of an earlier
        else:
            squares[".".join(parts[1:]) or path].append(square)
    return {name: math.sqrt(float(np.mean(values))) for name, values in squares.items()}


def _mean(sizes: Sequence[Sizes]) -> Sizes:
    return {name: math.sqrt(np.mean([s[name] ** 2 for s in sizes])) for name in sizes[0]}


def _numbers(key: str, text: str) -> list[int]:
    """Whole numbers with commas between, in order; ConfigError unless there are two or more."""
    words = str(text).strip("[]").replace(" ", "").split(",")
    if not all(word.isdecimal() and 0 < int(word) <= 1 << 16 for word in words):
        raise ConfigError(f"{key}={text}: give numbers from 1 to {1 << 16} with commas between")
    numbers = sorted({int(word) for word in words})
    if len(numbers) < 2:
        raise ConfigError(f"{key}={text}: a slope needs two sizes or more")
    return numbers


# ---------------------------------------------------------------------------- what is said of it


def print_sweep(console: Console, sweep: Sweep) -> None:
    how = f"carried over from {sweep.sizes[0]}" if sweep.carried else "without a base"
    sizes = ", ".join(map(str, sweep.sizes))
    console.print(f"{sweep.axis} {sizes}; {how}: slopes, 0 where the size does not matter")
    for name, slopes in sweep.slopes().items():
        told = "   ".join(f"{when} {slope:+.2f}" for when, slope in slopes.items())
        console.print(f"  {name:<14} {told}")


def worst(sweep: Sweep) -> tuple[float, str]:
    """The slope farthest from 0, and where it is."""
    found = [
        (abs(slope) if math.isfinite(slope) else math.inf, f"{name} at {when}: {slope:+.2f}")
        for name, slopes in sweep.slopes().items()
        for when, slope in slopes.items()
    ]
    return max(found)


def verdict(sweeps: Sequence[Sweep]) -> list[str]:
    """What is wrong, a line each."""
    problems = []
    for sweep in sweeps:
        slope, place = worst(sweep)
        if sweep.carried and slope > FLAT:
            problems.append(f"{sweep.axis}: settings do not carry over, {place}, not within {FLAT}")
        if not sweep.carried and slope <= FLAT:
            problems.append(f"{sweep.axis}: flat without a base too, so nothing was shown")
    return problems


def draw(sweeps: Sequence[Sweep], path: Path, n_steps: int) -> None:
    """A chart for each sweep: the changes after the last step over the size."""
    panels = {}
    for sweep in sweeps:
        how = f"carried over from {sweep.axis} {sweep.sizes[0]}" if sweep.carried else "no base"
        series = []
        for name in sweep.slopes():
            ys = [walk.changes[n_steps].get(name, math.nan) for walk in sweep.walks]
            series.append(figures.Series(name, sweep.sizes, ys))
            series.append(figures.Series(name, sweep.sizes, ys, dots=True))
        panels[f"{sweep.axis}: {how}"] = series
    figures.charts(panels, path, [sweep.axis for sweep in sweeps], f"change in {n_steps} steps")
