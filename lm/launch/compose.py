"""From the command line to a job: Hydra composes, config.load checks, one error is one line.

    launch.main(run)        # run(job) -> the score that a sweep minimises

Neither torch nor wandb is loaded before the configuration is known to be good.
"""

import contextlib
import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm import config
from lm.config import Config
from lm.huggingface import config as hf_config
from lm.launch import hydra_version
from lm.settings import flat_values
from lm.sweep import tuner
from lm.system.errors import ConfigError

log = logging.getLogger(__name__)
SECRET = re.compile(r"oc\.env:\s*([^,}]*(?:KEY|TOKEN|SECRET|PASSW)[^,}]*)", re.IGNORECASE)


def folder(name: str) -> Path:
    """conf/ or experiments/: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parent.parent
    found = package / name
    return found if found.is_dir() else package.parent / name


def register() -> None:
    """Tell Hydra our dataclasses, the experiments and the ranking of a sweep."""
    cs = ConfigStore.instance()
    cs.store(group="schema", name="config", node=Config)
    for group in config.PARTS:
        for name, cls in config.options(group).items():
            cs.store(group=f"schema/{group}", name=name, node=cls)
    for path in sorted(folder("experiments").glob("*/run.yaml")):
        _store_experiment(cs, path.parent.name, OmegaConf.load(path))
    ranking = {"_target_": "lm.sweep.callback.Ranking"}
    cs.store(group="hydra/callbacks", name="lm", node={"lm": ranking})
    tuner.register()


def _store_experiment(cs: ConfigStore, name: str, settings: DictConfig) -> None:
    """An option of the group `experiment`. Its `arms`, which need not have the same keys, become
    options NAME/ARM of the group `arm`, and its sweep goes over them."""
    own = settings.pop("arms", {})
    for arm, node in own.items():
        cs.store(group=f"arm/{name}", name=arm, node=node, package="_global_")
    if own:
        every = {"arm": ",".join(f"{name}/{arm}" for arm in own)}
        settings = OmegaConf.merge({"hydra": {"sweeper": {"params": every}}}, settings)
    cs.store(group="experiment", name=name, node=settings, package="_global_")


# ------------------------------------------------------------------------- before Hydra starts


def compose_run(words: list[str]) -> Config:
    """The checked configuration that `python -m lm.train WORDS` would train; raises ConfigError."""
    register()
    args = get_args_parser().parse_args(words)
    with (
        errors_in_one_line(words),
        initialize_config_dir(str(folder("conf")), **hydra_version.VERSION),
    ):
        return compose_job(args.overrides, search_path_override(args.config_dir))


def search_path_override(config_dir: str | None) -> list[str]:
    """The override that lets presets of the user's own be found."""
    return [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []


def compose_job(overrides: list[str], extra: list[str]) -> Config:
    lenient = [accepting_unknown_keys(word) for word in overrides]
    composed = compose("config", overrides=[*lenient, *extra])
    keys = {word: word.partition("=")[0].lstrip("+") for word in overrides}
    if composed.get("init_from"):
        _one_model(keys)
    cfg = load(composed)
    check_one_budget(keys.values(), cfg)
    return cfg


def _one_model(keys: dict[str, str]) -> None:
    """ConfigError where words name a model or tokenizer though `init_from` brings both; `keys`
    holds the key of each word."""
    free = ("model.context_len", "model.dropout")
    parts = ("model", "tokenizer")
    if theirs := [w for w, k in keys.items() if k.split(".")[0] in parts and k not in free]:
        raise ConfigError(
            f"init_from= brings its model and tokenizer: leave out {', '.join(theirs)}"
        )


def check_one_budget(keys: Collection[str], cfg: Config) -> None:
    """ConfigError where train.steps is given though another budget ends the run."""
    if "train.steps" in keys and (other := cfg.train.budgets()):
        key = other[0].partition("=")[0]
        raise ConfigError(
            f"train.steps beside {other[0]}: a run has one budget; leave train.steps out, or give "
            f"{key}=0 too"
        )


@contextlib.contextmanager
def errors_in_one_line(words: list[str]) -> Iterator[None]:
    """Hydra's errors as ours, in one line."""
    try:
        yield
    except AssertionError:  # Hydra's own, of words such as +=x
        raise ConfigError(f"{' '.join(words)}: a word here is not key=value") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error)) from None


def load(composed: DictConfig) -> Config:
    """What Hydra composed, as a checked Config. No secret of the environment gets into it."""
    for key, value in flat_values(OmegaConf.to_container(composed, resolve=False)).items():
        if isinstance(value, str) and (secret := SECRET.search(value)):
            raise ConfigError(f"{key}={value}: {secret[1]} would be written into the run's files")
    values = OmegaConf.to_container(composed, resolve=True)
    values = {str(k): v for k, v in values.items() if k not in ("hydra", "experiment")}
    return config.load(hf_config.adopt(values) if values.get("init_from") else values)


def accepting_unknown_keys(word: str) -> str:
    """`a.b=1` as `++a.b=1`: a key that does not exist then gets config.load's better message."""
    key = word.partition("=")[0]
    is_group = key.split("@")[0] in (*config.GROUPS, "experiment", "arm")
    return word if is_group or key.startswith(("hydra", "+", "~")) else f"++{word}"


def _one_line(error: Exception) -> str:
    """Hydra's message and its cause, without search paths and without its advice to use `+`."""
    text = str(error).partition("Config search path")[0].replace("\n\t", " ")
    if isinstance(error.__cause__, (HydraException, OmegaConfBaseException)):
        text += "\n" + str(error.__cause__).partition("\n")[0]
    lines = [line.strip().removeprefix("In 'config': ") for line in text.splitlines()]
    lines = [line for line in lines if line and "hydra.cc/docs" not in line]
    text = "; ".join(dict.fromkeys(lines)).replace("++", "")
    if number := re.search(r"Value '(\d+)\.0' of type 'float' could not be .* to Integer", text):
        text += f": write {number[1]}"
    if "schema/model/" in text:
        text += "; a model of your own takes import=MODULE too"
    quote = "; a value that holds = needs two pairs of quotes: 'key=\"a=b\"'"
    return text + quote * text.startswith("mismatched input '='")


# --------------------------------------------------------------------------- inside Hydra's jobs
