"""Many processes at one search: python -m tests.sweep.crowd ROOT N_PROCESSES N_TRIALS."""

import json
import os
import sys
import threading
from pathlib import Path

import optuna
import optuna.importance._fanova

from lm.settings.commands import TunerConfig
from lm.sweep import tuner
from tests.sweep.searches import search_space


def work(root: Path, n_trials: int) -> None:
    """Do trials of the search until there are enough, each in no time."""

    def launch(words: list[list[str]], first: int) -> None:
        for number in range(first, first + len(words)):
            (root / str(number)).mkdir()
            result = {"overrides": [], "status": "ok", "value": float(number), "error": None}
            (root / str(number) / "result.json").write_text(json.dumps(result))

    settings = TunerConfig(n_trials=n_trials, sampler="random")
    tuner.Search(root, settings, *search_space("a=interval(0.0,1.0)")).run(launch)


def main(root: Path, n_processes: int, n_trials: int) -> None:
    """Exit with the number of processes that failed, once all that begin together have ended."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert threading.active_count() == 1  # or a fork might wait for a lock for ever
    ready, go = os.pipe()
    children = []
    for _ in range(n_processes):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)  # until all are there
            work(root, n_trials)
            os._exit(0)
        children.append(child)
    os.close(go)
    sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
