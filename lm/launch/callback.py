"""What Hydra calls before it makes a directory, which must be new, empty, or ours; and at the end
of a sweep.
"""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lm.launch import cli, directory
from lm.sweep import progress
from lm.sweep.callback import conclude
from lm.system.environment import SWEEP, launch_rank


class Directories(Callback):
    """Checks and makes the directory of a run or sweep, and concludes a sweep.

    Hydra only warns of what a callback raises, unless that is SystemExit.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        if launch_rank() == 0:
            with cli.errors_in_one_line():
                out = Path(config.hydra.run.dir)
                directory.check(out)
                directory.make(out)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        with cli.errors_in_one_line():
            root = Path(config.hydra.sweep.dir)
            directory.check_sweep(root)
            directory.mark_sweep(root)
            os.environ[SWEEP] = str(root)  # for its jobs, some of which have processes of their own
            progress.show_start(root)

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        try:
            with cli.errors_in_one_line():
                conclude(Path(config.hydra.sweep.dir))
        except Exception:
            traceback.print_exc()
            sys.exit(1)
