"""Shared parts of the tests: a toy corpus, composed configurations, real commands.

No test needs a network or a GPU. LM_DATA_DIR, if set, holds shakespeare.txt and names.txt.
"""

import contextlib
import copy
import functools
import gc
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose as hydra_compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from lm import config, tokenizers, train
from lm.launch import compose
from lm.system import failpoint
from tests.browser import Browser
from tests.forks import Forks, Started
from tests.helpers import ROOT, TINY, start
from tests.wandb_server import WandbServer

# What the libraries have made stays: to go through it again and again took a sixth of the time.
gc.freeze()
gc.set_threshold(20_000, 20, 20)
compose.register()  # here, as mutants of lm are each judged in a fork of a process that collected
# A shell that started these tests with & has them ignore Ctrl-C, and what they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)
STREAMS = ("stdin", "stdout", "stderr")


def own_environment():
    """What a training or a library sets in the environment of this process is gone afterwards."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value and name != "PYTEST_CURRENT_TEST":  # which is pytest's
            os.environ[name] = value


@pytest.fixture(autouse=True)
def _own_environment():
    yield from own_environment()


@pytest.fixture(autouse=True)
def _own_world(_own_environment, tmp_path, monkeypatch):
    """Every test writes below its own folder, W&B included, and uses one thread."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "LM_CACHE_DIR", "LM_UID", "LM_IMPORTS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("LM_SWEEP", "LM_SWEEP_PLAN", "LM_ARM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "wandb-home"))  # where our own key lies
    torch.set_num_threads(1)
    # A command that a test ran in this process has taken it over: see signals.end_on_ctrl_c.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failpoint.switch_on("")


@pytest.fixture(autouse=True)
def _own_log():
    """A command that runs in this process prints its log, which no later test is to do."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers


@pytest.fixture(scope="session")
def toy_text(tmp_path_factory) -> Path:
    """A file of 40 kB with some structure to learn."""
    path = tmp_path_factory.mktemp("toy") / "toy.txt"
    lines = [
        f"{i} plus {i % 7} is {i + i % 7}, said the {('cat', 'dog')[i % 2]}." for i in range(1000)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def toy_bpe(toy_text):
    return tokenizers.train("bpe", [toy_text.read_text(encoding="utf-8")], vocab_size=400)


@pytest.fixture(scope="session")
def tiny(toy_text):
    """The overrides of a run that takes a fraction of a second."""
    return ("corpus=files", f"corpus.path={toy_text}", *TINY)


@pytest.fixture(scope="session")
def composed():
    """What the command line gives for some words, each once for all tests.

    Hydra takes 0.1 s to choose the files of conf/, and a hundredth to set the settings in them.
    """
    files: dict[tuple[str, ...], DictConfig] = {}
    known: dict[tuple[str, ...], config.Config] = {}

    def make(overrides: tuple[str, ...]) -> config.Config:
        if overrides in known:
            return copy.deepcopy(known[overrides])
        choices = tuple(word for word in overrides if _chooses_files(word))
        settings = [word for word in overrides if not _chooses_files(word)]
        with compose.composing():
            if choices not in files:
                files[choices] = hydra_compose("config", overrides=list(choices))
            whole = copy.deepcopy(files[choices])
            parsed = OverridesParser.create().parse_overrides(settings)
            ConfigLoaderImpl._apply_overrides_to_config(parsed, whole)
            made = compose.load(whole)
        if not any("$" in word for word in overrides):  # or it may mean something else tomorrow
            known[overrides] = copy.deepcopy(made)
        return made

    return make


def _chooses_files(word: str) -> bool:
    """Whether a word chooses a file of a group, as model=gru does, or is about Hydra itself."""
    key = word.partition("=")[0].lstrip("+~").partition("@")[0]
    return key in (*config.GROUPS, "experiment", "arm") or key.startswith("hydra")


@pytest.fixture
def cfg(composed):
    """cfg("model=gru", ...): the checked configuration that the command line would give."""
    return lambda *overrides: composed(overrides)


@pytest.fixture
def trained(cfg, tiny, tmp_path):
    """trained("model=gru", ...): the directory of a finished run of a fraction of a second."""

    def make(*overrides: str) -> Path:

        made = cfg(*tiny, *overrides)
        out = tmp_path / "run"
        out.mkdir()
        config.save(made, out / config.RESOLVED)
        train.train(made, out)
        return out

    return make


@pytest.fixture(scope="session")
def trained_once(composed, tiny, tmp_path_factory):
    """trained_once("model=gru", ...): a finished run that tests read and none of them changes."""
    known: dict[tuple[str, ...], Path] = {}

    def make(*overrides: str) -> Path:
        if overrides not in known:
            out = tmp_path_factory.mktemp("trained_once") / "run"
            made = composed((*tiny, *overrides))
            with contextlib.chdir(out.parent), pytest.MonkeyPatch.context() as patched:
                patched.delenv("LM_CACHE_DIR", raising=False)
                out.mkdir()
                config.save(made, out / config.RESOLVED)
                train.train(made, out)
            known[overrides] = out
        return known[overrides]

    return make


@pytest.fixture(scope="session")
def browsers():
    """`with browsers(width=390, dark=True) as browser`: the one browser, as if it were new."""
    started: list[Browser] = []

    @contextlib.contextmanager
    def lend(width: int = 1280, dark: bool = False):
        if not started:
            started.append(Browser())
        started[0].renew(width, dark)
        yield started[0]

    yield lend
    for browser in started:
        browser.close()


def environment(**changes: str) -> dict[str, str]:
    """The environment of a command."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", **changes}


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    of_all = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the workers' folders lie side by side
        of_all = of_all.parent
    made = Forks(environment(), of_all / "compiled")
    yield made
    made.close()


@pytest.fixture
def command(tmp_path, tmp_path_factory, forks):
    """command("lm.train", ...): the finished process of a real command in the test's folder."""
    streams = tmp_path_factory.mktemp("streams")

    def run(module: str, *words: str, **env: str) -> subprocess.CompletedProcess:
        env = environment(**env)
        if forks.can_run(env):
            return forks.run([module, *words], tmp_path, env, streams, timeout=300)
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture
def started(tmp_path, tmp_path_factory, forks):
    """started("lm.train", ...): a real command under way in the test's folder, on a `terminal`."""

    def begin(
        module: str, *words: str, terminal: int | None = None, **env: str
    ) -> subprocess.Popen | Started:
        env = environment(**env)
        if terminal is not None:  # which says itself how wide it is
            env.pop("COLUMNS")
        if not forks.can_run(env):
            streams = {} if terminal is None else dict.fromkeys(STREAMS, terminal)
            return start(module, *words, env=env, **streams)
        status = tmp_path_factory.mktemp("started") / "status"
        files = [] if terminal is None else [os.ttyname(terminal)] * 3
        return forks.start([module, *words], tmp_path, env, status, *files)

    return begin


@functools.cache
def installed_packages() -> list:
    from wandb import util

    return list(util.working_set())


@pytest.fixture
def packages_listed_once(monkeypatch):
    """W&B's client reads what is said of all installed packages at the start of each run."""
    found = installed_packages()
    monkeypatch.setattr("wandb.util.working_set", lambda: found)


@pytest.fixture
def server(monkeypatch, packages_listed_once):
    """A stand-in for W&B, with the client pointed at it; the client's service is stopped after."""
    import wandb

    with WandbServer() as there:
        monkeypatch.setenv("WANDB_BASE_URL", there.url)
        monkeypatch.setenv("WANDB_API_KEY", there.key)
        with contextlib.suppress(ConnectionError):  # the test before may have killed its process
            wandb.teardown()
        yield there
        with contextlib.suppress(ConnectionError):  # a test may have killed the client's process
            wandb.teardown()
        wandb.run = None  # which stays where a server has kept a run from its end


@pytest.fixture
def fresh_client(packages_listed_once):
    import wandb

    wandb.run = None
    wandb.teardown()
    yield
    wandb.teardown()


def pytest_terminal_summary(terminalreporter) -> None:
    """The sums of what tests counted with record_property, such as the processes they killed."""
    sums: dict = {}
    for report in terminalreporter.getreports("") + terminalreporter.getreports("passed"):
        if report.when == "teardown":
            for name, value in report.user_properties:
                sums[name] = sums.get(name, 0) + value if isinstance(value, int) else value
    for name, value in sums.items():
        terminalreporter.write_line(f"{name}: {value}")
