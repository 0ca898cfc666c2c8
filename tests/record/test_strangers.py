"""A run directory from a stranger: damaged or hostile, it gets one line and runs no code.

Each kind of damage is tried with the command that meets it first; `make test-faults` tries every
command on every kind.
"""

import contextlib
import json
import logging
import os
import pickle
import runpy
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import lm
from lm import config, train
from lm.launch import cli, compose, resume
from lm.record import checkpoint
from lm.system import store
from tests.helpers import TINY

SENTINEL = "/tmp/strangers-code-ran"
RUN = (*TINY, "model=gpt2", "model.n_layer=1", "model.n_head=2", "model.n_embd=8")
RUN = (*RUN, "model.context_len=16", "track=off", "train.steps=2", "train.save_every=1")
NOBODYS = {"size": 1, "sha256": "0"}  # in a manifest
READ = {"sample", "evaluate", "lens", "export", "check"}  # the commands that open a run
COMMANDS = {
    "sample": ["lm.sample", "run=run", "max_tokens=3", "checkpoint=last"],
    "evaluate": ["lm.evaluate", "run=run", "checkpoint=last"],
    "lens": ["lm.lens", "run=run", "checkpoint=last"],
    "export": ["lm.export", "run=run", "checkpoint=last", "format=hf"],
    "check": ["lm.check", "run=run", "checkpoint=last"],
    "report": ["lm.report", "run", "good"],
    "resume": ["lm.train", "resume=run", "train.steps=3"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, toy_text):
    """A folder with a whole run and the cache it was made with."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LM_CACHE_DIR", str(home / "cache"))
        made = compose.compose_run(["corpus=files", f"corpus.path={toy_text}", *RUN])
        (home / "run" / ".hydra").mkdir(parents=True)
        (home / "run" / ".hydra" / "overrides.yaml").write_text("- model=gpt2\n")
        config.save(made, home / "run" / config.RESOLVED)
        train.train(made, home / "run")
    return home


@pytest.fixture
def stranger(home, tmp_path, monkeypatch):
    """stranger(damage): ./run with this damage and ./good without."""

    def make(damage):
        monkeypatch.setenv("LM_CACHE_DIR", str(home / "cache"))
        for name in ("run", "good"):
            shutil.copytree(home / "run", tmp_path / name)
        damage(tmp_path / "run")

    yield make
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SENTINEL)
        pytest.fail("a stranger's code ran")


@pytest.fixture
def call(monkeypatch, capfd):
    """call("sample"): (exit code, standard error) of the command in this process."""

    def run(name):
        module, *words = COMMANDS[name]
        monkeypatch.setattr(sys, "argv", [module, *words])
        root = logging.getLogger()
        handlers, root.handlers = root.handlers, []  # so that the command sets up its own
        code = 0
        try:
            if name == "resume":
                with cli.errors_in_one_line():
                    train.run_job(resume.job(words))
            else:
                monkeypatch.delitem(sys.modules, module, raising=False)  # or runpy would warn of it
                runpy.run_module(module, run_name="__main__")
        except SystemExit as error:
            code = error.code or 0
        finally:
            for handler in root.handlers:
                handler.close()
            root.handlers = handlers
        return code, capfd.readouterr().err

    return run


# ----------------------------------------------------------------------------------- the damage


def settings(change):
    def damage(run):
        path = run / config.RESOLVED
        path.write_text(change(path.read_text()))

    return damage


def setting(key, value):
    group, name = key.split(".")

    def change(text):
        before, after = text.split(f"{group}:\n", 1)
        lines = after.split("\n")
        at = next(i for i, line in enumerate(lines) if line.strip().startswith(f"{name}:"))
        lines[at] = f"  {name}: {value}"
        return f"{before}{group}:\n" + "\n".join(lines)

    return settings(change)


def written(name, data):
    def damage(run):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return damage


def updated(name, **changes):
    def damage(run):
        values = json.loads((run / name).read_text())
        (run / name).write_text(json.dumps(values | changes))

    return damage


def linked(name, to):
    def damage(run):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(to)

    return damage


def pipe(run):
    (run / "tokenizer.json").unlink()
    os.mkfifo(run / "tokenizer.json")


def emptied(name):
    def damage(run):
        shutil.rmtree(run / "checkpoints")
        (run / "checkpoints" / name).mkdir(parents=True)

    return damage


def sealed(change):
    """Change the newest checkpoint and seal it again, as a stranger could."""

    def damage(run):
        folder = checkpoint.folder(run, 2)
        change(folder)
        (folder / store.MANIFEST).unlink(missing_ok=True)
        store.seal(folder)

    return damage


def weights(change):
    def damage(folder):
        tensors = load_file(folder / "model.safetensors")
        save_file(change(tensors), folder / "model.safetensors")

    return sealed(damage)


def header(length, entries=None):
    def damage(folder):
        text = json.dumps(entries).encode() if entries else b"{}"
        content = struct.pack("<Q", length or len(text)) + text + bytes(64)
        (folder / "model.safetensors").write_bytes(content)

    return sealed(damage)


class Payload:
    def __reduce__(self):
        return os.system, (f"touch {SENTINEL}",)


PICKLE = pickle.dumps(Payload())
TENSOR = {"dtype": "F32", "shape": [1 << 19, 1 << 19], "data_offsets": [0, 1 << 40]}
BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGE = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)
ROWS = '[1]\n{"step": "x"}\n{"step": 1e999}\n{"val/bpb": {}}\n' + "[" * 9999
OPEN = {*READ, "resume", "report"}  # all that read the settings
NUMBERS = {"export", "check", "report"}  # all that read the summary and the other records

# kind: (what is done, the commands that must refuse, a word of the message)
DAMAGE = {
    "settings: a _target_": (
        written(config.RESOLVED, "_target_: os.system"),
        READ | {"resume"},
        "_target_",
    ),
    "settings: a _target_ inside": (
        settings(lambda t: t.replace("model:\n", "model:\n  _target_: os.system\n")),
        READ | {"resume"},
        "model._target_",
    ),
    "settings: a class": (
        settings(lambda t: t.replace("model:\n", "model:\n  builds: os:system\n")),
        READ | {"resume"},
        "model.builds",
    ),
    "settings: the environment": (
        settings(lambda t: t.replace("notes: ''", "notes: ${oc.env:HOME}")),
        READ | {"resume"},
        "write the value itself",
    ),
    "settings: a Python object": (
        settings(lambda t: t + f"x: !!python/object/apply:os.system ['touch {SENTINEL}']\n"),
        OPEN,
        "could not determine a constructor",
    ),
    "settings: aliases": (settings(lambda t: t + BOMB), OPEN, "alias"),
    "settings: merged aliases": (settings(lambda t: t + MERGE), OPEN, "alias"),
    "settings: an endless alias": (settings(lambda t: t + "x: &x [*x]\n"), OPEN, "alias"),
    "settings: deep": (
        settings(lambda t: t + "x: " + "[" * 500 + "]" * 500 + "\n"),
        OPEN,
        "nested more than",
    ),
    "settings: very deep": (written(config.RESOLVED, "[" * 200_000), OPEN, config.RESOLVED),
    "settings: lists in lines": (written(config.RESOLVED, "- " * 200_000), OPEN, config.RESOLVED),
    "settings: a list": (written(config.RESOLVED, "[1]"), OPEN, config.RESOLVED),
    "settings: none": (written(config.RESOLVED, ""), READ | {"resume"}, "is missing"),
    "settings: no text": (written(config.RESOLVED, b"\xff\xfe"), OPEN, config.RESOLVED),
    "settings: a terabyte": (lambda r: os.truncate(r / config.RESOLVED, 1 << 40), OPEN, "bytes"),
    "settings: a seed in words": (settings(lambda t: t.replace("seed: 0", "seed: x")), OPEN, "x"),
    "settings: a giant model": (
        setting("model.n_embd", 65536),
        READ | {"resume"},
        "holds another model",
    ),
    "settings: endless layers": (setting("model.n_layer", 10**9), READ | {"resume"}, "n_layer"),
    "tokenizer: cut": (lambda r: os.truncate(r / "tokenizer.json", 40), READ, "tokenizer.json"),
    "tokenizer: a pickle": (written("tokenizer.json", PICKLE), READ, "tokenizer.json"),
    "tokenizer: a terabyte": (lambda r: os.truncate(r / "tokenizer.json", 1 << 40), READ, "bytes"),
    "tokenizer: another": (
        updated("tokenizer.json", specials={"<|endoftext|>": 256, "<s>": 257}),
        READ,
        "holds another model",
    ),
    "tokenizer: missing": (lambda r: (r / "tokenizer.json").unlink(), READ, "no tokenizer.json"),
    "weights: a bit": (
        lambda r: os.truncate(checkpoint.folder(r, 2) / "model.safetensors", 99),
        READ,
        "checksum",
    ),
    "weights: a header of a terabyte": (header(1 << 40), READ, "model.safetensors"),
    "weights: a tensor of a terabyte": (header(0, {"wte.weight": TENSOR}), READ, "cannot be read"),
    "weights: a pickle": (
        sealed(lambda f: (f / "model.safetensors").write_bytes(PICKLE)),
        READ,
        "model.safetensors",
    ),
    "weights: torch.save": (
        sealed(lambda f: torch.save(Payload(), f / "model.safetensors")),
        READ,
        "model.safetensors",
    ),
    "weights: another dtype": (
        weights(lambda t: {k: v.to(torch.int64) for k, v in t.items()}),
        READ | {"resume"},
        "torch.int64",
    ),
    "weights: NaN": (
        weights(lambda t: {k: v * torch.nan for k, v in t.items()}),
        READ | {"resume"},
        "finite",
    ),
    "weights: one more": (
        weights(lambda t: t | {"x": torch.ones(1)}),
        READ | {"resume"},
        "another model",
    ),
    "weights: none": (weights(lambda t: {"x": torch.ones(1)}), READ | {"resume"}, "another model"),
    "checkpoint: a list": (
        sealed(lambda f: (f / "state.json").write_text("[]")),
        {"check"},
        "state",
    ),
    "checkpoint: deep": (
        sealed(lambda f: (f / "state.json").write_text("[" * 100_000)),
        {"check"},
        "state.json",
    ),
    "checkpoint: no manifest": (
        lambda r: (checkpoint.folder(r, 2) / store.MANIFEST).unlink(),
        READ,
        store.MANIFEST,
    ),
    "checkpoint: a manifest of words": (
        written(f"checkpoints/step_000002/{store.MANIFEST}", '{"files": {"state.json": 1}}'),
        READ,
        "not what was written",
    ),
    "checkpoint: a path that leaves": (
        updated(
            f"checkpoints/step_000002/{store.MANIFEST}",
            files={"../../x": NOBODYS},
        ),
        READ,
        "missing or added",
    ),
    "checkpoint: empty": (
        lambda r: (
            shutil.rmtree(r / "checkpoints"),
            (r / "checkpoints/step_000009").mkdir(parents=True),
        ),
        READ | {"resume"},
        "checkpoint",
    ),
    "checkpoint: a strange number": (
        lambda r: (
            shutil.rmtree(r / "checkpoints"),
            (r / "checkpoints/step_\u00b2").mkdir(parents=True),
        ),
        READ | {"resume"},
        "has no checkpoint",
    ),
    "a link to the outside": (linked("train.log", "/etc/hostname"), OPEN, "not a plain file"),
    "a link without end": (linked("metrics.jsonl", "/dev/zero"), OPEN, "not a plain file"),
    "a link to a folder": (linked("checkpoints", "../good/checkpoints"), OPEN, "not a plain file"),
    "a pipe": (pipe, OPEN, "not a plain file"),
    "summary: a list": (written("summary.json", "[1]"), NUMBERS, "summary.json"),
    "summary: words": (updated("summary.json", best_val_bpb=[]), NUMBERS, "best_val_bpb"),
    "summary: huge": (updated("summary.json", step=10**300), NUMBERS, "step"),
    "summary: deep": (written("summary.json", "[" * 100_000), NUMBERS, "summary.json"),
    "summary: a terabyte": (lambda r: os.truncate(r / "summary.json", 1 << 40), NUMBERS, "bytes"),
    "data: a list": (
        written("data.json", "[1]"),
        NUMBERS | {"resume", "evaluate"},
        "data.json",
    ),
    "data: words": (
        updated("data.json", tokens={"corpus": 1}),
        NUMBERS | {"resume", "evaluate"},
        "corpus",
    ),
    "code: a list": (written("code.json", "[1]"), NUMBERS | {"resume"}, "code.json"),
    "result: words": (written("result.json", '{"overrides": 3}'), {"check", "report"}, "overrides"),
    "overrides: a Python object": (
        written(".hydra/overrides.yaml", f"- !!python/object/apply:os.system ['touch {SENTINEL}']"),
        {"check", "report"},
        "overrides.yaml",
    ),
    "metrics: a terabyte": (
        lambda r: os.truncate(r / "metrics.jsonl", 1 << 40),
        {"check", "report", "export", "resume"},  # a model card has the results of its checkpoint
        "bytes",
    ),
    # And what must disturb nobody.
    "metrics: strange rows": (
        written(
            "metrics.jsonl", '[1]\n{"step": "x"}\n{"step": 1e999}\n{"val/bpb": {}}\n' + "[" * 9999
        ),
        set(),
        "",
    ),
    "samples: strange rows": (written("samples.jsonl", '{"step": [], "text": 3}\n{}\n'), set(), ""),
    "data: another folder": (updated("data.json", folder="/etc"), set(), ""),
    "wandb: an id that leaves": (written("wandb.json", '{"id": "../../x"}'), set(), ""),
}


def examine(kind, command, stranger, call):
    damage, refuse, word = DAMAGE[kind]
    stranger(damage)
    code, error = call(command)
    assert "Traceback" not in error
    if command not in refuse:
        assert code in (0, 1 if command == "check" else 0), error
    elif command == "report":  # it names the bad run and goes on with the others
        assert code == 0 and Path("outputs/report.html").exists()
        assert "run is skipped" in error and word in error
    else:
        assert code in (2, 5), error
        assert error.splitlines()[-1].startswith("error: ") and word in error, error
        assert len(error) < 3000


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_strangers_run_is_refused_in_one_line(kind, stranger, call):
    refuse = DAMAGE[kind][1]
    examine(kind, min(refuse & {"sample", "check", "report"}, default="sample"), stranger, call)


@pytest.mark.faults
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", DAMAGE)
def test_every_command_answers_every_damage(kind, command, stranger, call):
    examine(kind, command, stranger, call)


# --------------------------------------------------------------------------- secrets and places


@pytest.mark.faults
def test_no_file_holds_the_key_and_a_name_leads_nowhere(command, tiny, tmp_path):
    key = "5e1717e1" * 5
    words = (*tiny[:2], *RUN, "track=offline", "name=../../x", "train.prompts=[a]")
    words = [word for word in words if word != "track=off"]
    done = command("lm.train", *words, WANDB_API_KEY=key, MY_SECRET=key)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "wandb").is_dir()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 20
    for path in files:
        assert key.encode() not in path.read_bytes(), path
    assert {p.name for p in tmp_path.iterdir()} <= {"outputs", "wandb-home"}
    assert not list(tmp_path.parent.glob("x*"))


@pytest.mark.faults
def test_a_directory_in_which_a_run_trains_is_refused_with_its_process(command, tiny, tmp_path):
    words = [*tiny, *RUN[-6:], "train.steps=100000", "hydra.run.dir=run"]
    root = Path(lm.__file__).parent.parent
    first = subprocess.Popen(
        [sys.executable, "-m", "lm.train", *words],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 120
        while not (Path("run") / "metrics.jsonl").exists():
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.1)
        second = command("lm.train", *words)
        assert second.returncode == 2
        assert f"run is being written by process {first.pid} on" in second.stderr
    finally:
        first.kill()
        first.wait()
    again = command("lm.train", *tiny, "model=bigram_counts", "hydra.run.dir=run")
    assert "holds another run" in again.stderr  # the lock went with its process
