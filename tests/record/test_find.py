"""Which run a name means."""

import os
from pathlib import Path

import pytest

from lm import config
from lm.corpora import generated
from lm.record.find import find_run, run_directories


def test_a_sweep_in_place_of_a_run_is_told_apart(tmp_path):
    (tmp_path / "s/3").mkdir(parents=True)
    (tmp_path / "s/3" / config.RESOLVED).touch()
    with pytest.raises(ValueError, match="s is a sweep: choose one of its arms, such as run=s/3"):
        find_run("s")
    (tmp_path / "s" / config.RESOLVED).touch()  # a run that others were made in
    assert find_run("s") == Path("s")
    with pytest.raises(ValueError, match="record is not a run directory"):
        find_run(str(Path(__file__).parent))


def test_latest_is_the_run_started_last(tmp_path):
    for i, name in enumerate(["runs/d/a", "sweeps/d/s/0", "runs/d/b", "runs/mine", "sweeps/s/0"]):
        path = Path("outputs") / name / "config.resolved.yaml"
        path.parent.mkdir(parents=True)
        path.touch()
        for newest in range(i + 1):
            os.utime(path, (0, 100 * (newest == i)))
        assert find_run("latest") == Path("outputs") / name
        os.utime(path, (0, 0))


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_folder_one_is_in(name, tmp_path):
    """run= said of the current folder that it is a sweep."""
    (tmp_path / "arm").mkdir()
    (tmp_path / "arm" / config.RESOLVED).touch()
    with pytest.raises(ValueError, match="the name of the run is empty: give its directory"):
        find_run(name)


def made(path: str) -> Path:
    folder = Path(path)
    folder.mkdir(parents=True)
    (folder / config.RESOLVED).touch()
    return folder


def test_a_sweep_whose_arms_lie_deeper_names_them(tmp_path):
    made("s/bigram/100")
    with pytest.raises(ValueError, match=r"such as run=s/bigram/100; .* ranks them"):
        find_run("s")


def test_a_run_is_found_below_a_folder_of_any_name_and_a_copy_of_its_files_is_none(tmp_path):
    """Runs below folders called cache or wandb were found by no report."""
    mine = [made(f"outputs/{name}/a") for name in ("cache", "wandb", "run-20261129_101010-x")]
    mine.append(made("outputs/wandb/run-20261129_101011-mine"))
    made("outputs/cache/wandb-0123456789abcdef")
    made("outputs/wandb/offline-run-20261129_101010-12da3015/files")
    assert sorted(run_directories([Path("outputs")])) == sorted(mine)


def test_a_cache_is_not_searched_for_runs(tmp_path):
    """That of PyTorch's compiler has thousands of folders."""
    for place in ("cache/compiled/a", "run"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / config.RESOLVED).touch()
    (tmp_path / "cache/compiled" / generated.CACHE_TAG).touch()
    assert list(run_directories([tmp_path])) == [tmp_path / "run"]
