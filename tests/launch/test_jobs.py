"""A directory is one run's, and says so when that run is given another end."""

import re

import pytest

from lm import config
from lm.launch import jobs, preflight
from lm.record.schemas import Summary
from lm.system import files
from lm.system.errors import ConfigError, NoCheckpointError, OtherRunError


def test_a_directory_that_holds_another_run_is_refused(cfg, tmp_path):
    jobs.claim(jobs.Job(cfg("track=off"), tmp_path, []))
    jobs.claim(jobs.Job(cfg("track=off"), tmp_path, []))  # the same run is not another
    with pytest.raises(ValueError, match=r"optimizer\.lr is 0\.03 there and 0\.0001 here"):
        jobs.claim(jobs.Job(cfg("track=off", "optimizer.lr=1e-4"), tmp_path, []))


def test_of_many_differences_a_refusal_names_the_first(cfg, tmp_path):
    """Another model filled a page with its settings."""
    jobs.claim(jobs.Job(cfg("track=off"), tmp_path, []))
    with pytest.raises(OtherRunError) as caught:
        jobs.claim(jobs.Job(cfg("track=off", "model=gru", "optimizer=adamw"), tmp_path, []))
    said = str(caught.value)
    assert said.count(" there and ") == jobs.LISTED and len(said) < 500
    assert re.search(r" and \d+ more; choose another directory$", said)


def test_an_arm_that_was_made_longer_keeps_its_sweep_from_nothing(cfg, tmp_path):
    here = ["-m", "hydra.sweep.dir=new", "hydra.sweep.dir=s", "seed=0,1", "train.steps=6"]
    for number, steps in enumerate([9, 6]):
        (tmp_path / f"s/{number}").mkdir(parents=True)
        made = cfg(f"seed={number}", f"train.steps={steps}")
        config.save(made, tmp_path / f"s/{number}" / config.RESOLVED)
    with pytest.raises(ConfigError, match="9 there and 6 here"):
        preflight.check(here)
    code = tmp_path / "s/0/code.json"
    code.write_text('{"extended": [6]}')
    preflight.check(here)
    before = (tmp_path / "s/0" / config.RESOLVED).read_text()
    jobs.claim(jobs.Job(cfg("train.steps=6"), tmp_path / "s/0", [], sweep=tmp_path / "s"))
    assert (tmp_path / "s/0" / config.RESOLVED).read_text() == before


def test_a_complete_run_without_its_checkpoints_gets_no_other_end(cfg, tmp_path):
    """It began again at step 0, over the curves and the summary of a copy without checkpoints."""
    config.save(cfg("train.steps=50"), tmp_path / config.RESOLVED)
    summary = Summary(1.0, 1.0, 1.0, 50, 50, 50, 1.0, 1, 1)
    (tmp_path / "summary.json").write_text(files.to_json(summary))
    with pytest.raises(NoCheckpointError, match="has no checkpoint to go on from"):
        jobs.claim(jobs.Job(cfg("train.steps=60"), tmp_path, []))
    (tmp_path / "checkpoints/step_000000").mkdir(parents=True)
    jobs.claim(jobs.Job(cfg("train.steps=60"), tmp_path, []))


def test_a_run_stopped_on_its_way_and_given_another_end_says_so(cfg, tmp_path):
    (tmp_path / "checkpoints/step_000203").mkdir(parents=True)
    (tmp_path / "code.json").write_text("{}")
    config.save(cfg("train.steps=2000"), tmp_path / config.RESOLVED)
    for words in (("train.steps=50",), ("train.tokens=2000",)):
        with pytest.raises(ConfigError, match=f"{words[0]} ends before step 203"):
            jobs.claim(jobs.Job(cfg(*words), tmp_path, []))
    jobs.claim(jobs.Job(cfg("train.steps=3000"), tmp_path, []))
    jobs.claim(jobs.Job(cfg("train.steps=4000"), tmp_path, []))
    assert files.read_json(tmp_path / "code.json")["extended"] == [203]
