"""A run directory, opened: what it lacks is told with what to do."""

import os
from pathlib import Path

import pytest

from lm import config, tokenizers, train
from lm.launch import directory
from lm.record import checkpoint
from lm.record.run import Run
from lm.system import store
from lm.system.errors import OutOfMemoryError
from tests.helpers import TINY_TRANSFORMER


def test_a_damaged_summary_keeps_no_checkpoint_from_being_read(trained):
    out = trained(*TINY_TRANSFORMER)
    best = Run.open(str(out)).checkpoint("best")
    (out / "summary.json").write_text("{")
    assert Run.open(str(out)).checkpoint("best") == best


def test_a_run_without_a_checkpoint_says_how_to_get_one(cfg, tmp_path):
    config.save(cfg("tokenizer=byte"), tmp_path / config.RESOLVED)
    with pytest.raises(ValueError, match="stopped before training began"):
        Run.open(str(tmp_path))
    tokenizers.train("byte", ["x"]).save(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=f"has no checkpoint: .*resume={tmp_path} makes one"):
        Run.open(str(tmp_path)).model()
    (tmp_path / "summary.json").write_text("{}")  # resume= would say that there is nothing to do
    with pytest.raises(
        ValueError, match=r"is complete and has no checkpoint: put checkpoints/ back"
    ):
        Run.open(str(tmp_path)).model()


def test_weights_that_do_not_fit_are_named_and_other_errors_stay(trained, monkeypatch):
    out = trained("model=bigram")
    run = Run.open(str(out))

    def fails(text):
        def load(folder, model):
            raise RuntimeError(text)

        monkeypatch.setattr(checkpoint, "load_weights", load)

    fails("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
    with pytest.raises(OutOfMemoryError, match=r"out of memory: the weights in .*step_000020 take"):
        run.model()
    fails("another")
    with pytest.raises(RuntimeError, match="another"):
        run.model()


def test_every_name_that_a_run_makes_is_synced_in_its_folder(cfg, tiny, tmp_path, monkeypatch):
    """By the letter of POSIX a name that is not is lost with the power, and all below it.

    Of 149 moments replayed, 141 lost all checkpoints: checkpoints/ itself was never synced.
    """
    durable: set[Path] = set()
    plain = os.fsync

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.is_dir():
            durable.update(path.iterdir())
        plain(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "new/cache"))
    out = tmp_path / "new/sweep/run"
    directory.make(out)
    with store.locked(out):
        train.train(cfg(*tiny, "train.steps=4", "train.save_every=2"), out)
    made = {path for path in (tmp_path / "new").rglob("*") if not path.name.startswith(".")}
    inside = {path for path in made if (path.parent / store.MANIFEST).exists()}
    assert made - durable - inside == set()
    # Files below a renamed folder were listed under its temporary name.
    renamed = {path.name for path in durable if path.parent.name.startswith(".")}
    assert {path.name for path in inside} <= renamed | {store.MANIFEST}
    assert out / "checkpoints" in durable and tmp_path / "new" in durable
