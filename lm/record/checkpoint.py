"""Checkpoints: all that a run needs to go on, in folders that are whole or absent.

    checkpoint.save(out, model, optimizers, state, keep_last=2)
    state = checkpoint.resume(out, model, optimizers) or TrainState()

checkpoints/step_000500/ holds model.safetensors, optimizer.safetensors, state.json and
manifest.json. Nothing is pickled. No random state is stored, as every draw is a function of
(seed, purpose, number of the batch).
"""

import contextlib
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from lm import config
from lm.models.base import LanguageModel
from lm.models.counts import CountModel
from lm.record import optimizer_state
from lm.record.schemas import CheckpointRecord
from lm.record.state import TrainState
from lm.system import distributed, failpoint, files, foreign, memory, ranks, store
from lm.system.errors import DamagedError, NoCheckpointError, NonFiniteError, StorageError
from lm.system.tensors import load_shapes, load_tensors

log = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.safetensors"
REPLACES = "new_"  # begins the name of a whole checkpoint that replaces one of the same step
SPARE = 1 << 30  # bytes that a model may take for tables that are computed and not saved


def folder(out: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return out / "checkpoints" / f"step_{step:06d}"


def steps(out: Path) -> list[int]:
    """The steps that have a checkpoint, oldest first; its content is not looked at."""
    found = []
    for path in (out / "checkpoints").glob("step_*"):
        number = path.name.removeprefix("step_")
        is_ours = number.isdecimal() and path.name == folder(out, int(number)).name
        if is_ours and path.is_dir():  # step_4 beside step_000004 is somebody's copy
            found.append(int(number))
    return sorted(found)


def save(
    out: Path,
    model: LanguageModel,
    optimizers: list[torch.optim.Optimizer],
    state: TrainState,
    keep_last: int,
) -> None:
    """Write the checkpoint of state.step, in place of one that is there, then delete those that
    nobody goes back to.

    Raises NonFiniteError rather than write a weight that is not finite, and StorageError, with
    the bytes needed and free, where the disk refuses; the checkpoints of before then stay. Of
    several processes rank 0 writes, and all go on, or raise, when it is done.
    """
    weights = {}
    for name, tensor in model.state_dict().items():
        weights[name] = distributed.gather_on_rank_0(tensor).contiguous()
    tensors, group_sizes = optimizer_state.pack(optimizers)
    record = CheckpointRecord(state, group_sizes)
    ranks.on_rank_0(_write, out, record, weights, tensors)
    ranks.on_rank_0(_prune, out, state, keep_last)


def _write(
    out: Path,
    record: CheckpointRecord,
    weights: dict[str, torch.Tensor],
    optimizer_tensors: dict[str, torch.Tensor],
) -> None:
    step = record.state.step
    for name, tensor in (*weights.items(), *optimizer_tensors.items()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NonFiniteError(f"step {step}: {name} has values that are not finite")
    final = folder(out, step)
    try:
        failpoint.hit("ckpt.begin")
        _replace(out)
        place = final.with_name(f"{REPLACES}{final.name}") if final.exists() else final
        with store.new_folder(place, "ckpt") as tmp:
            save_file(weights, tmp / WEIGHTS)
            failpoint.hit("ckpt.mid_write")
            save_file(optimizer_tensors, tmp / OPTIMIZER)
            (tmp / record.file).write_text(files.to_json(record), encoding="utf-8")
        _replace(out)
    except (OSError, SafetensorError) as error:  # the latter for a write that was refused
        n_bytes = sum(t.nbytes for t in (*weights.values(), *optimizer_tensors.values()))
        free = shutil.disk_usage(out).free
        raise StorageError(
            f"the checkpoint of step {step} is not written ({error}): it needs "
            f"{n_bytes:,} bytes, and {free:,} are free in {out}"
        ) from None


def _replace(out: Path) -> None:
    """Let each whole checkpoint that replaces one of the same step take its place.

    A process may have been killed before it came to that.
    """
    for path in (out / "checkpoints").glob(f"{REPLACES}step_*"):
        final = path.with_name(path.name.removeprefix(REPLACES))
        try:
            store.verify(path)  # or an intact checkpoint would give way to anything of that name
        except DamagedError as error:
            log.warning(f"checkpoint {path.name} is damaged and set aside: {error}")
            store.set_aside(path)
            continue
        if _is_same(final, path):
            store.remove(path)
            continue
        if final.exists():
            store.remove(final)
        files.rename(path, final)


def _is_same(old: Path, new: Path) -> bool:
    """Whether an old checkpoint is intact and has the bytes of a new one."""
    try:
        store.verify(old)
        manifests = [foreign.read_bytes(folder / store.MANIFEST) for folder in (old, new)]
        return manifests[0] == manifests[1]
    except (DamagedError, OSError):
        return False


def _prune(out: Path, state: TrainState, keep_last: int) -> None:
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
    _replace(out)
    for step in reversed(steps(out)):
        path = folder(out, step)
        try:
            store.verify(path)
            state = read_record(path).state
            if state.step != step:
                raise DamagedError(f"its state is that of step {state.step}")
            for name in (WEIGHTS, OPTIMIZER):
                load_tensors(path / name)
        except DamagedError as error:
            log.warning(f"checkpoint {path.name} is damaged and set aside: {error}")
            store.set_aside(path)
            continue
        return path
    if any((out / "checkpoints").glob(f"{store.DAMAGED}*")):
        raise NoCheckpointError(
            f"every checkpoint of {out} is damaged: start a new run, or delete "
            f"{out / 'checkpoints'} to start this one again"
        )
    return None


def read_record(path: Path) -> CheckpointRecord:
    """Where the run of a checkpoint stood; raises DamagedError."""
    return files.read_record(path / CheckpointRecord.file, CheckpointRecord)


def load_optimizers(path: Path, optimizers: list[torch.optim.Optimizer]) -> None:
    """Fill the optimizers' state from a checkpoint; ValueError if it is that of others."""
    tensors = load_tensors(path / OPTIMIZER)
    optimizer_state.unpack(optimizers, tensors, read_record(path).optimizers)


def load_weights(path: Path, model: LanguageModel) -> None:
    """Fill the model from a checkpoint; ValueError lists every key and shape that differs."""
    weights = load_tensors(path / WEIGHTS)
    current = model.state_dict()
    try:
        for name, tensor in weights.items():
            if name in current and tensor.dtype != current[name].dtype:
                raise ValueError(f"{name} is {tensor.dtype}, not {current[name].dtype}")
            if name in current and tensor.ndim != current[name].ndim:  # PyTorch lets some pass
                shape = tuple(current[name].shape)
                raise ValueError(f"size mismatch for {name}: {tuple(tensor.shape)}, not {shape}")
        distributed.load_state_dict(model, weights)
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{path} holds another model: {text[:2000]}") from None
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{path} is damaged: {name} has values that are not finite")


def check_fits(path: Path, build: Callable[[], LanguageModel]) -> None:
    """Raise ValueError, before memory is taken, if `build` makes another model than was saved.

    A stranger's configuration may ask for more memory than the machine has.
    """
    file = path / WEIGHTS
    model = memory.skeleton(build)
    if model is None:
        return
    shapes = load_shapes(file)
    if isinstance(model, CountModel):
        return  # its tables have the length that the file says
    for name, tensor in model.state_dict().items():
        if shapes.get(name) != list(tensor.shape):
            raise ValueError(
                f"{path} holds another model: {name} is {shapes.get(name, 'not there')}, and "
                f"{config.RESOLVED} makes it {list(tensor.shape)}"
            )
    n_bytes = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    if n_bytes > SPARE + 4 * file.stat().st_size:
        raise ValueError(f"{path}: its model takes {n_bytes:,} bytes, far more than its weights")


def check_newest_fits(out: Path, build: Callable[[], LanguageModel]) -> None:
    """Raise ValueError if `build` makes another model than that of the run's newest checkpoint."""
    for step in reversed(steps(out)):
        with contextlib.suppress(DamagedError):  # resume names it and sets it aside
            check_fits(folder(out, step), build)
            return
