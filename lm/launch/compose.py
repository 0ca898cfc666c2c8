"""From the words of a command line to a checked Config: Hydra composes, config.load checks.

    cfg = compose.compose_run(["model=gru", "train.steps=500"])

Every mistake is a ConfigError of one line. Neither torch nor wandb is loaded.
"""

import argparse
import contextlib
import dataclasses
import functools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lm import config
from lm.config import Config
from lm.huggingface import config_json
from lm.launch import hydra_internals, values
from lm.launch.hydra_internals import REPLACE
from lm.launch.presets import folder
from lm.launch.words import as_typed
from lm.settings.commands import TunerConfig
from lm.settings.reading import fields_of, flat_values
from lm.system.errors import ConfigError
from lm.system.text import shell_word

TUNER = "hydra_plugins.lm_sweeper.Tuner"  # hydra/sweeper=lm; Hydra finds plugins there alone
SECRET = re.compile(r"oc\.env:\s*([^,}]*(?:KEY|TOKEN|SECRET|PASSW)[^,}]*)", re.IGNORECASE)


def register(words: Collection[str] = ("experiment",)) -> None:
    """Register with Hydra the dataclasses, sweeper and ranking of lm, and the experiments where
    the words can ask for one: to read them all, and to copy them at each composition, took as
    long as everything else here."""
    cs = ConfigStore.instance()
    cs.store(group="schema", name="config", node=Config, **REPLACE)
    for group in config.PARTS:
        for name, cls in config.options(group).items():
            there = cs.repo["schema"].setdefault(group, {})
            there[f"{name}.yaml"] = LateNode(f"{name}.yaml", f"schema/{group}", cls)
    for path in _experiments() if any(map(_may_name_experiment, words)) else ():
        settings = OmegaConf.load(path)
        assert isinstance(settings, DictConfig), f"{path} holds no settings"
        _store_experiment(cs, path.parent.name, settings)
    callback = {"_target_": "lm.launch.callback.Directories"}
    cs.store(group="hydra/callbacks", name="lm", node={"lm": callback}, **REPLACE)
    sweeper = {"_target_": TUNER, **dataclasses.asdict(TunerConfig())}
    cs.store(group="hydra/sweeper", name="lm", node=sweeper, provider="lm", **REPLACE)


class LateNode(ConfigNode):
    """A part's schema, which is made where a composition first takes the part: to make all of them
    took a sixth of the time of a start that had loaded its modules."""

    def __init__(self, name: str, group: str, cls: type[config.Part]) -> None:
        self.name, self.group, self.cls = name, group, cls
        self.package = self.provider = None

    def __getattr__(self, name: str) -> DictConfig:
        if name != "node":
            raise AttributeError(name)
        return _schema(self.cls)


def _experiments() -> list[Path]:
    return sorted(folder("experiments").glob("*/run.yaml"))


def _may_name_experiment(word: str) -> bool:
    """Whether a word names an experiment or one of its arms, or brings presets that may: an option
    of Hydra's or its search path."""
    is_option = word.startswith("-") and word not in ("-m", "--multirun")
    return is_option or any(key in word for key in ("experiment", "arm", "searchpath"))


@functools.cache
def _schema(cls: type[config.Part]) -> DictConfig:
    """What Hydra checks a part's settings against. In a mapping, such as corpus.parts, the user
    chooses the keys."""
    schema = OmegaConf.structured(cls)
    for field in dataclasses.fields(cls):
        if field.default_factory is dict:
            OmegaConf.set_struct(schema[field.name], False)
    return schema


def _store_experiment(cs: ConfigStore, name: str, settings: DictConfig) -> None:
    """An option of the group `experiment`, whose runs have its name unless it gives them one. Its
    `arms`, which need not have the same keys, become options NAME/ARM of the group `arm`, and its
    sweep goes over them."""
    arms = settings.pop("arms", {})
    for arm, node in arms.items():
        cs.store(group=f"arm/{name}", name=arm, node=node, package="_global_", **REPLACE)
    node: dict[str, object] = {"name": name}
    if arms:
        params = {"arm": ",".join(f"{name}/{arm}" for arm in arms)}
        node["hydra"] = {"sweeper": {"params": params}}
    whole = OmegaConf.merge(node, settings)
    cs.store(group="experiment", name=name, node=whole, package="_global_", **REPLACE)


# ------------------------------------------------------------------------- before Hydra starts


def compose_run(words: list[str]) -> Config:
    """The checked configuration that `python -m lm.train WORDS` would train; raises ConfigError."""
    register(words)
    args = read_arguments(as_typed(words))
    with errors_in_one_line(words), composing():
        return compose_job(args.overrides, search_path_override(args.config_dir))


def read_arguments(words: list[str]) -> argparse.Namespace:
    """Hydra's options among the words, and the `overrides`; ConfigError for a word of no use."""
    args, strange = hydra_internals.read_arguments(words)
    if strange and strange[0].startswith("-"):
        raise ConfigError(f"{strange[0]} is no option: settings are key=value, without dashes")
    if strange:
        raise ConfigError(f"{strange[0]}: put -m and other options before the settings")
    for word in args.overrides:
        if "=" in word or word.startswith("~"):
            continue
        hint = "; quote a word that holds a blank (README.md, under Settings)"
        if Path(word).exists():
            hint = f"; for a text of your own corpus=files {shell_word(f'corpus.path={word}')}"
        raise ConfigError(f"{word} is not key=value{hint}")
    values.check(args.overrides, args.multirun)
    return args


@contextlib.contextmanager
def composing(presets: Path | None = None) -> Iterator[None]:
    """Hydra is initialized with conf/, or other presets, inside, so that compose can be called."""
    with initialize_config_dir(str(presets or folder("conf")), **hydra_internals.VERSION):
        hydra_internals.read_once()
        yield


def search_path_override(config_dir: str | None) -> list[str]:
    """The override that lets presets of the user's own be found."""
    return [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []


def compose_job(overrides: list[str], extra: list[str]) -> Config:
    """The checked configuration of one job; `extra` are overrides of our own, such as paths."""
    return checked_job(overrides, compose_whole(overrides, extra))


def compose_jobs(jobs: Sequence[list[str]], extra: list[str]) -> list[Config]:
    """`compose_job` of each job of a sweep.

    Jobs that choose the same parts are composed once, and the values of each are set in a copy.
    """
    parser = hydra_internals.overrides_parser()
    composed: dict[tuple[str, ...], DictConfig] = {}  # by the words that choose parts
    configs = []
    for job in jobs:
        choices = tuple(word for word in job if not _sets_value(word))
        try:
            _check_parts(job)
            if choices not in composed:
                composed[choices] = settings_of(compose_whole(list(choices), extra))
            values = parser.parse_overrides([word for word in job if word not in choices])
            configs.append(checked(job, hydra_internals.with_values(composed[choices], values)))
        except Exception:  # whatever it is, Hydra's own way says it better
            configs.append(compose_job(job, extra))
    return configs


def _sets_value(word: str) -> bool:
    """Whether a word sets a setting of a part or of the run, and chooses no part."""
    key = word.partition("=")[0]
    return key not in (*config.GROUPS, "experiment", "arm") and bool(fields_of(Config, key))


def compose_whole(overrides: list[str], extra: list[str]) -> DictConfig:
    """What Hydra composes of one job, its own settings under the key `hydra` included."""
    _check_parts(overrides)
    with contextlib.suppress(Exception):  # whatever it is, the second try says it better
        return compose("config", overrides=[*overrides, *extra], return_hydra_config=True)
    lenient = [accepting_unknown_keys(word) for word in overrides]
    with errors_of_hydra(overrides):
        return compose("config", overrides=[*lenient, *extra], return_hydra_config=True)


def checked_job(overrides: list[str], whole: DictConfig) -> Config:
    """The configuration in what compose_whole made of the overrides; raises ConfigError."""
    return checked(overrides, settings_of(whole))


def settings_of(whole: DictConfig) -> DictConfig:
    """What was composed but for Hydra's own settings."""
    return OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])


def checked(overrides: list[str], composed: DictConfig) -> Config:
    """The configuration in the settings that the overrides compose; raises ConfigError."""
    if composed.get("init_from"):
        _check_one_model(overrides)
    cfg = load(composed)
    check_one_budget([_key(word) for word in overrides], cfg)
    return cfg


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _check_parts(overrides: Sequence[str]) -> None:
    """ConfigError where two parts of a mix have one name: the second would replace the first."""
    given: dict[str, str] = {}
    for word in overrides:
        key, _, value = word.partition("=")
        key = key.lstrip("+")
        if key.startswith("corpus.parts.") and given.setdefault(key, value) != value:
            raise ConfigError(
                f"{key} is given as {given[key]} and as {value}: two parts need two names"
            )


def _check_one_model(overrides: Sequence[str]) -> None:
    """ConfigError where words name a model or tokenizer though `init_from` brings both."""
    allowed = [f"model.{name}" for name in Config.kept_with_init_from]
    wrong = []
    for word in overrides:
        key = _key(word)
        if key.split(".")[0] in ("model", "tokenizer") and key not in allowed:
            wrong.append(word)
    if wrong:
        raise ConfigError(
            f"init_from= brings its model and tokenizer: leave out {', '.join(wrong)}"
        )


def check_one_budget(keys: Collection[str], cfg: Config) -> None:
    """ConfigError where train.steps is given though another budget ends the run."""
    budgets = cfg.train.budgets()
    if "train.steps" in keys and budgets:
        key = budgets[0].partition("=")[0]
        raise ConfigError(
            f"train.steps beside {budgets[0]}: a run has one budget; leave train.steps out, or "
            f"give {key}=0 too"
        )


@contextlib.contextmanager
def errors_in_one_line(words: list[str]) -> Iterator[None]:
    """Hydra's errors as ours, in one line."""
    try:
        yield
    except AssertionError:  # Hydra's own, of words such as +=x
        raise ConfigError(f"{' '.join(words)}: a word here is not key=value") from None
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error, words)) from None


@contextlib.contextmanager
def errors_of_hydra(words: Sequence[str]) -> Iterator[None]:
    """Whatever else Hydra fails with while it composes, as a ConfigError: no code of ours runs
    inside, so the words are at fault. OmegaConf has an AttributeError for a mapping given in place
    of null, such as hydra.sweeper.params={a:1}."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError, OSError):
        raise
    except Exception as error:
        text = str(error).partition("\n")[0]
        key = re.search(r"full_key: (\S+)", str(error))
        given = [word for word in words if key and _key(word) == key[1]] or words
        raise ConfigError(f"{' '.join(given)}: Hydra cannot compose this ({text})") from None


def load(composed: DictConfig) -> Config:
    """What Hydra composed, as a checked Config. No secret of the environment gets into it."""
    for key, value in flat_values(plain(composed, resolve=False)).items():
        secret = SECRET.search(value) if isinstance(value, str) else None
        if secret:
            raise ConfigError(f"{key}={value}: {secret[1]} would be written into the run's files")
    settings = plain(composed, resolve=True)
    for group in ("hydra", "experiment"):
        settings.pop(group, None)
    return config.load(config_json.adopt(settings) if settings.get("init_from") else settings)


def plain(composed: DictConfig, resolve: bool) -> dict[str, object]:
    """The nested values, with each `${...}` as it stands or as what it means."""
    nested = OmegaConf.to_container(composed, resolve=resolve)
    assert isinstance(nested, dict), "a DictConfig becomes a dict"
    return {str(key): value for key, value in nested.items()}


def accepting_unknown_keys(word: str) -> str:
    """`a.b=1` as `++a.b=1`: a key that does not exist then gets config.load's better message."""
    key = word.partition("=")[0]
    is_group = key.split("@")[0] in (*config.GROUPS, "experiment", "arm")
    if is_group or key.startswith(("hydra", "+", "~")):
        return word
    return f"++{word}"


def _one_line(error: Exception, words: Sequence[str]) -> str:
    """Hydra's message and its cause, without search paths and without its advice to use `+`."""
    text = str(error).partition("Config search path")[0].replace("\n\t", " ")
    if isinstance(error.__cause__, (HydraException, OmegaConfBaseException)):
        text += "\n" + str(error.__cause__).partition("\n")[0]
    lines = [line.strip().removeprefix("In 'config': ") for line in text.splitlines()]
    lines = [line for line in lines if line and "hydra.cc/docs" not in line]
    text = "; ".join(dict.fromkeys(lines)).replace("++", "")
    word = getattr(error, "override", None) or ""  # the one that Hydra's grammar does not take
    if word not in text:
        text = f"{word}: {text}"
    call = re.match(r"(\w+) while evaluating '(.*?)': ", text)  # which names the value alone
    given = [word for word in words if call and call[2] in word]
    if call and given:
        text = f"{given[0]}: {text[call.end() :]}"
    whole = re.search(r"Value '(\d+)\.0' of type 'float' could not be .* to Integer", text)
    if whole:
        text += f": write {whole[1]}"
    merged = re.match(r"Error merging override ([\w.]+)=.*could not be converted", text)
    if merged:
        text += f"; {merged[1]} takes {values.allowed(merged[1])}"
    if "schema/model/" in text:
        text += "; a model of your own takes import=MODULE too"
    return text
