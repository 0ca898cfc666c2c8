"""A run directory, opened: what it lacks is told with what to do."""

import pytest

from lm import config, tokenizers
from lm.record.run import Run
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
