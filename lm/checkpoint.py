"""Checkpoints: all that a run needs to go on, in folders that are whole or absent.

    checkpoint.save(out, model, optimizers, state, keep_last=2)
    state = checkpoint.resume(out, model, optimizers) or TrainState()

checkpoints/step_000500/ holds model.safetensors, optimizer.safetensors, state.json and
manifest.json. Nothing is pickled. No random state is stored, as every draw is a function of
(seed, purpose, step).
"""

import json
import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lm import store
from lm.models.base import LanguageModel

log = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Where a run stands: everything that changes besides weights and optimizer."""

    step: int = 0  # updates done
    tokens: int = 0  # trained on
    seconds: float = 0.0  # of training steps, evaluation and saving left out
    best_val_bpb: float = float("inf")
    best_step: int = -1
    losses: list[float] = field(default_factory=list)  # of the steps since the last logged point


def folder(out: Path, step: int) -> Path:
    return out / "checkpoints" / f"step_{step:06d}"


def steps(out: Path) -> list[int]:
    """The steps that have a checkpoint, oldest first; its content is not looked at."""
    names = (p.name for p in (out / "checkpoints").glob("step_*") if p.is_dir())
    return sorted(int(name[5:]) for name in names if name[5:].isdigit())


def save(
    out: Path,
    model: LanguageModel,
    optimizers: list[torch.optim.Optimizer],
    state: TrainState,
    keep_last: int,
) -> None:
    """Write the checkpoint of state.step, then delete those that are neither recent nor best."""
    target = folder(out, state.step)
    if not target.exists():
        tensors, settings = _pack_optimizers(optimizers)
        with store.new_folder(target) as tmp:
            weights = {k: v.contiguous() for k, v in model.state_dict().items()}
            save_file(weights, tmp / "model.safetensors")
            save_file(tensors, tmp / "optimizer.safetensors")
            (tmp / "state.json").write_text(
                json.dumps({"state": asdict(state), "optimizers": settings}, indent=1)
            )
    for step in steps(out)[:-keep_last]:
        if step != state.best_step:
            store.remove(folder(out, step))


def resume(
    out: Path, model: LanguageModel, optimizers: list[torch.optim.Optimizer]
) -> TrainState | None:
    """Load the newest intact checkpoint into model and optimizers; None if there is none at all.

    A damaged one is named and set aside. Raises ValueError if all are damaged, or if the weights
    belong to another model.
    """
    found = steps(out)
    for step in reversed(found):
        path = folder(out, step)
        try:
            store.verify(path)
            saved = store.read_json(path / "state.json")
            tensors = load_tensors(path / "optimizer.safetensors")
            state = TrainState(**{f.name: saved["state"][f.name] for f in fields(TrainState)})
        except (store.DamagedError, KeyError, TypeError) as error:
            log.warning(f"checkpoint {path.name} is damaged and set aside: {error}")
            path.rename(path.with_name(f"damaged_{path.name}"))
            continue
        load_weights(path, model)
        _unpack_optimizers(optimizers, tensors, saved["optimizers"])
        log.info(f"resumed from {path.name}")
        return state
    if found:
        raise ValueError(
            f"every checkpoint of {out} is damaged (see damaged_*): start a new run instead"
        )
    return None


def load_weights(path: Path, model: LanguageModel) -> None:
    """Fill the model from a checkpoint; ValueError lists every key and shape that differs."""
    weights = load_tensors(path / "model.safetensors")
    try:
        model.load_state_dict(weights, strict=True)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} holds another model: {' '.join(str(error).split())}") from None


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise store.DamagedError(f"{path} cannot be read: {error}") from None


def _pack_optimizers(
    optimizers: list[torch.optim.Optimizer],
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """State as tensors named OPTIMIZER/PARAMETER/NAME, and the plain settings of the groups."""
    tensors: dict[str, torch.Tensor] = {}
    settings = []
    for i, optimizer in enumerate(optimizers):
        saved = optimizer.state_dict()
        for parameter, values in saved["state"].items():
            for name, value in values.items():
                tensors[f"{i}/{parameter}/{name}"] = torch.as_tensor(value).contiguous()
        settings.append([len(group["params"]) for group in saved["param_groups"]])
    return tensors, settings


def _unpack_optimizers(
    optimizers: list[torch.optim.Optimizer],
    tensors: dict[str, torch.Tensor],
    settings: list[list[int]],
) -> None:
    """The reverse. The rates of the groups come from the configuration, not from the file."""
    now = [[len(g["params"]) for g in o.param_groups] for o in optimizers]
    if now != settings:
        raise ValueError(
            f"the checkpoint's optimizer has parameter groups of {settings}, this one of {now}: "
            "resume takes the same optimizer and model"
        )
    for i, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            which, parameter, name = key.split("/")
            if int(which) == i:
                state.setdefault(int(parameter), {})[name] = tensor
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter, values in state.items():
            for name, tensor in values.items():
                if tensor.ndim and tensor.shape != parameters[parameter].shape:
                    raise ValueError(
                        f"the checkpoint's optimizer state {name} of parameter {parameter} has "
                        f"shape {tuple(tensor.shape)}, not {tuple(parameters[parameter].shape)}"
                    )
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
