"""hydra/sweeper=lm, where Hydra looks for it: its plugins lie in hydra_plugins and nowhere else.

Other packages bring folders of the same name, so this one has no __init__.py. What the sweeper
does is in lm/sweep/tuner.py, which is loaded when a search starts.
"""

from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class Tuner(Sweeper):
    """Searches with Optuna; `settings` are those of lm.sweep.space.TunerConfig."""

    def __init__(self, **settings: Any) -> None:
        from lm.sweep.space import tuner_settings

        self.settings = tuner_settings(settings)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self.parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> None:
        from lm.launch import cli
        from lm.sweep import space, tuner
        from lm.system import files

        assert self.config is not None and self.launcher is not None, "Hydra calls setup first"
        launcher = self.launcher
        root = Path(self.config.hydra.sweep.dir)
        with cli.errors_in_one_line():
            root.mkdir(parents=True, exist_ok=True)
            fixed, searched = space.search_space(self.parser, self.settings.params, arguments)
            search = tuner.Search(root, self.settings, fixed, searched)
            files.atomic_write(root / "multirun.yaml", OmegaConf.to_yaml(self.config))
            search.run(lambda jobs, first: launcher.launch(jobs, initial_job_idx=first))
