"""Checkpoints: all that a run needs to go on, in folders that are whole or absent.

    checkpoint.save(out, model, optimizers, state, keep_last=2)
    state = checkpoint.resume(out, model, optimizers) or TrainState()

checkpoints/step_000500/ holds model.safetensors, optimizer.safetensors, state.json and
manifest.json. Nothing is pickled. No random state is stored, as every draw is a function of
(seed, purpose, step).
"""

import contextlib
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode

from lm import config
from lm.models.base import LanguageModel
from lm.models.counts import CountModel
from lm.record.schemas import CheckpointRecord
from lm.record.state import TrainState
from lm.system import distributed, failpoint, files, ranks, store
from lm.system.errors import DamagedError, NoCheckpointError, NonFiniteError, StorageError
from lm.system.tensors import load_tensors

log = logging.getLogger(__name__)
STATES = {"AdamW": {"step", "exp_avg", "exp_avg_sq"}, "Muon": {"momentum"}}  # of a parameter
SPARE = 1 << 30  # bytes that a model may take for tables that are computed and not saved


def folder(out: Path, step: int) -> Path:
    return out / "checkpoints" / f"step_{step:06d}"


def steps(out: Path) -> list[int]:
    """The steps that have a checkpoint, oldest first; its content is not looked at."""
    names = (p.name for p in (out / "checkpoints").glob("step_*") if p.is_dir())
    return sorted(int(name[5:]) for name in names if name[5:].isdecimal())


def save(
    out: Path,
    model: LanguageModel,
    optimizers: list[torch.optim.Optimizer],
    state: TrainState,
    keep_last: int,
) -> None:
    """Write the checkpoint of state.step, then delete those that nobody goes back to.

    Raises NonFiniteError rather than write a weight that is not finite, and StorageError, with
    the bytes needed and free, where the disk refuses; the checkpoints of before then stay. Of
    several processes rank 0 writes, and all go on, or raise, when it is done.
    """
    weights = {
        k: distributed.gather_on_rank_0(v).contiguous() for k, v in model.state_dict().items()
    }
    ranks.on_rank_0(_write, out, state, keep_last, weights, *_pack_optimizers(optimizers))


def _write(
    out: Path,
    state: TrainState,
    keep_last: int,
    weights: dict[str, torch.Tensor],
    tensors: dict[str, torch.Tensor],
    settings: list[list[int]],
) -> None:
    target = folder(out, state.step)
    for name, tensor in (*weights.items(), *tensors.items()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NonFiniteError(f"step {state.step}: {name} has values that are not finite")
    try:
        failpoint.hit("ckpt.begin")
        if not target.exists():
            with store.new_folder(target, "ckpt") as tmp:
                save_file(weights, tmp / "model.safetensors")
                failpoint.hit("ckpt.mid_write")
                save_file(tensors, tmp / "optimizer.safetensors")
                record = CheckpointRecord(state, settings)
                (tmp / record.file).write_text(files.to_json(record))
    except (OSError, SafetensorError) as error:  # the latter for a write that was refused
        needed = sum(t.nbytes for t in (*weights.values(), *tensors.values()))
        free = shutil.disk_usage(out).free
        raise StorageError(
            f"the checkpoint of step {state.step} is not written ({error}): it needs "
            f"{needed:,} bytes, and {free:,} are free in {out}"
        ) from None
    for step in steps(out)[:-keep_last]:
        if step not in (state.best_step, state.good_step):
            with contextlib.suppress(OSError):  # it is in nobody's way but the disk's
                store.remove(folder(out, step))
            failpoint.hit("ckpt.mid_prune")


def remove_after(out: Path, step: int) -> None:
    """Delete the checkpoints of later steps."""
    for later in steps(out):
        if later > step:
            store.remove(folder(out, later))


def resume(
    out: Path, model: LanguageModel, optimizers: list[torch.optim.Optimizer]
) -> TrainState | None:
    """Load the newest intact checkpoint into model and optimizers; None if there is none at all.

    A damaged one is named and set aside. Raises NoCheckpointError if all are damaged, and
    ValueError if the weights belong to another model.
    """
    path = ranks.on_rank_0(_newest, out)
    if path is None:
        return None
    state = read_record(path).state
    load_weights(path, model)
    load_optimizers(path, optimizers)
    log.info(f"resumed from {path.name}")
    return state


def _newest(out: Path) -> Path | None:
    store.clear_leftovers(out / "checkpoints")
    for step in reversed(steps(out)):
        path = folder(out, step)
        try:
            store.verify(path)
            state = read_record(path).state
            if state.step != step or state.skipped_batches < 0:
                raise DamagedError(f"its state is that of step {state.step}")
            for name in ("model.safetensors", "optimizer.safetensors"):
                load_tensors(path / name)
        except DamagedError as error:
            log.warning(f"checkpoint {path.name} is damaged and set aside: {error}")
            path.rename(path.with_name(f"damaged_{path.name}"))
            continue
        return path
    if any((out / "checkpoints").glob("damaged_*")):
        raise NoCheckpointError(
            f"every checkpoint of {out} is damaged: start a new run, or delete "
            f"{out / 'checkpoints'} to start this one again"
        )
    return None


def read_record(path: Path) -> CheckpointRecord:
    """Where the run of a checkpoint stood; raises DamagedError."""
    return files.read_record(path / CheckpointRecord.file, CheckpointRecord)


def load_weights(path: Path, model: LanguageModel) -> None:
    """Fill the model from a checkpoint; ValueError lists every key and shape that differs."""
    _fill(model, load_tensors(path / "model.safetensors"), path)


def _fill(model: LanguageModel, weights: dict[str, torch.Tensor], path: Path) -> None:
    mine = model.state_dict()
    try:
        for name, tensor in weights.items():
            if name in mine and tensor.dtype != mine[name].dtype:
                raise ValueError(f"{name} is {tensor.dtype}, not {mine[name].dtype}")
        distributed.load_state_dict(model, weights)
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path} holds another model: {text[:2000]}") from None
    for name, _ in model.named_parameters():
        if not weights[name].isfinite().all():
            raise ValueError(f"{path} is damaged: {name} has values that are not finite")


class _Unfilled(TorchFunctionMode):
    """Leave out torch.nn.init: to draw on the meta device takes a second, for PyTorch's compiler
    is imported to do it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def check_fits(path: Path, build: Callable[[], LanguageModel]) -> None:
    """Raise ValueError before any memory is taken, if the model that `build` makes is not that of
    the checkpoint: a stranger's configuration may ask for more than the machine has."""
    file = path / "model.safetensors"
    try:
        with torch.device("meta"), _Unfilled():  # shapes alone
            model = build()
    except Exception:  # it computes with values as it is made, in whatever way
        return
    try:
        with safe_open(file, "pt") as saved:
            shapes = {name: saved.get_slice(name).get_shape() for name in saved.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{file} cannot be read: {error}") from None
    if isinstance(model, CountModel):
        return  # its tables have the length that the file says
    for name, tensor in model.state_dict().items():
        if shapes.get(name) != list(tensor.shape):
            raise ValueError(
                f"{path} holds another model: {name} is {shapes.get(name, 'not there')}, and "
                f"{config.RESOLVED} makes it {list(tensor.shape)}"
            )
    needed = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    if needed > SPARE + 4 * file.stat().st_size:
        raise ValueError(f"{path}: its model takes {needed:,} bytes, far more than its weights")


def check_newest_fits(out: Path, build: Callable[[], LanguageModel]) -> None:
    """`check_fits` for the newest checkpoint of a run that can be read, if there is one."""
    for step in reversed(steps(out)):
        with contextlib.suppress(DamagedError):  # resume names it and sets it aside
            check_fits(folder(out, step), build)
            return


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
                tensor = distributed.gather_on_rank_0(torch.as_tensor(value))
                tensors[f"{i}/{parameter}/{name}"] = tensor.contiguous()
        settings.append([len(group["params"]) for group in saved["param_groups"]])
    return tensors, settings


_KEY = re.compile(r"([0-9]{1,4})/([0-9]{1,7})/(\w{1,60})")


def load_optimizers(path: Path, optimizers: list[torch.optim.Optimizer]) -> None:
    """Fill the optimizers' state from a checkpoint; ValueError if it is that of others.

    The rates of the groups come from the configuration, not from the file.
    """
    tensors = load_tensors(path / "optimizer.safetensors")
    settings = read_record(path).optimizers
    now = [[len(g["params"]) for g in o.param_groups] for o in optimizers]
    if now != settings:
        raise ValueError(
            f"the checkpoint's optimizer has parameter groups of {settings}, this one of {now}: "
            "resume takes the same optimizer and model"
        )
    if strange := [key for key in tensors if not _KEY.fullmatch(key)]:
        raise ValueError(f"the checkpoint's optimizer state has the name {strange[0][:60]!a}")
    for i, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            which, parameter, name = _KEY.fullmatch(key).groups()
            if int(which) == i:
                state.setdefault(int(parameter), {})[name] = tensor
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter, values in state.items():
            wanted = STATES.get(type(optimizer).__name__, values.keys())
            if parameter >= len(parameters) or values.keys() != wanted:
                raise ValueError(
                    f"the checkpoint's optimizer state holds {', '.join(sorted(values))[:99]} of "
                    f"parameter {parameter}, and not {', '.join(sorted(wanted))[:99]}"
                )
            for name, tensor in values.items():
                shape = tensor.shape if tensor.ndim == 0 else parameters[parameter].shape
                if tensor.shape != shape or not tensor.is_floating_point():
                    raise ValueError(
                        f"the checkpoint's optimizer state {name} of parameter {parameter} is "
                        f"{tensor.dtype} {tuple(tensor.shape)}, not {tuple(shape)}"
                    )
                if tensor.ndim:
                    values[name] = distributed.shard_like(tensor, parameters[parameter])
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
