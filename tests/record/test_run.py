"""A run directory, opened: what it lacks is told with what to do."""

import pytest

from lm import config, tokenizers
from lm.record import checkpoint
from lm.record.run import Run
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
