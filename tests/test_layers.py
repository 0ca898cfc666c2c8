"""What the files of lm may load, and that the maps name them all.

The order of imports is checked by import-linter: see pyproject.toml, `make lint`.
"""

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {  # a package, and the files of lm that may import it
    "hydra": {
        "launch.callback",
        "launch.compose",
        "launch.hydra_internals",
        "launch.main",
        "launch.preflight",
        "launch.spread",
        "launch.values",
        "sweep.space",
    },
    "omegaconf": {
        "launch.callback",
        "launch.cli",
        "launch.compose",
        "launch.hydra_internals",
        "launch.main",
        "launch.preflight",
        "launch.spread",
        "settings.reading",
        "settings.yaml_files",
        "sweep.tuner",
    },
    "wandb": {
        f"record.wandb_{name}"
        for name in (
            "answer",
            "artifact",
            "client",
            "files",
            "histograms",
            "mirror",
            "mode",
            "project",
            "sender",
            "sweep",
        )
    },
    "matplotlib": {"report.figures"},
    "pyarrow": {"corpora.parquet"},
    "optuna": {"sweep.journal", "sweep.space", "sweep.study", "sweep.tuner"},
    "safetensors": {"record.checkpoint", "system.tensors", "export.files"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in (ROOT / "lm").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / "lm").with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = path
    return found


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imports(path: Path) -> set[str]:
    """Every module named by an import statement, those inside functions too."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


@pytest.mark.parametrize("package", HEAVY)
def test_a_heavy_package_stays_in_its_files(package):
    users = {
        name
        for name, path in modules().items()
        if any(i.split(".")[0] == package for i in imports(path))
    }
    assert users <= HEAVY[package]


def test_the_tokenizers_and_their_command_load_only_numpy_and_regex():
    """The command, installed alone, did not start: a path was expanded by what loads msgspec."""
    code = (
        "import sys; old = set(sys.modules); import lm.tokenizers.command, lm.tokenizers.formats; "
    )
    code += "print(*(set(sys.modules) - old))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    names = {name.split(".")[0] for name in loaded.stdout.split()} - sys.stdlib_module_names
    assert names == {"lm", "numpy", "regex"}


def test_configuration_errors_load_neither_torch_nor_wandb(tmp_path):
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lm.train", "model.n_layr=3"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    ).stderr
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in trace.splitlines()}
    assert "hydra" in loaded
    assert not loaded & {"torch", "wandb", "matplotlib"}


def test_steps_and_looks_that_are_not_compiled_do_not_load_the_compiler(tmp_path):
    code = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
import numpy as np
from lm import config, loop
from lm.check import training_checks
from lm.check.bench import Bench
from lm.record import checkpoint
from lm.system import devices, memory
from lm.lens import bigram_view, probe
devices.configure(1, deterministic=True)
bigram_view.bigram(np.arange(100, dtype=np.uint16) % 9, 9, torch.arange(4))
training_checks.overfit(Bench(config.Config(model=config.BigramConfig()), 9, torch.device("cpu")))
model = config.TransformerConfig(n_layer=1, n_embd=8, context_len=4).build(9)
for kind in config.options("optimizer").values():
    for optimizer in kind().build(model):
        model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
probe.record(model, torch.zeros(1, 4, dtype=torch.long))
folder = Path(sys.argv[1])
for name in ("transformer", "gru", "mlp", "bigram"):
    build = config.options("model")[name]().build
    save_file(build(9).state_dict(), folder / "model.safetensors")
    checkpoint.check_fits(folder, lambda: build(9))
    try:
        checkpoint.check_fits(folder, lambda: build(8))
        sys.exit(f"another {name} was not seen")
    except ValueError:
        pass
for name in ("bigram_counts", "ngram"):
    memory.skeleton(lambda: config.options("model")[name]().build(9))
sys.exit("torch._dynamo" in sys.modules or "sympy" in sys.modules)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=True)


def test_no_module_is_called_like_one_of_the_standard_library():
    names = {name.rpartition(".")[2] for name in modules()} - {""}
    assert not names & (set(sys.stdlib_module_names) - {"tokenizers"})


def test_no_file_of_ours_can_run_what_a_stranger_wrote():
    for name, path in modules().items():
        assert not imports(path) & {"pickle", "marshal", "shelve", "dill"}, name
        for call in (n for n in ast.walk(parsed(path)) if isinstance(n, ast.Call)):
            text = ast.unparse(call.func)
            assert text not in {"eval", "exec", "yaml.load", "torch.load"}, f"{name}: {text}"
            for keyword in call.keywords:
                assert keyword.arg != "allow_pickle", f"{name}: {ast.unparse(call)}"


def test_every_folder_has_a_readme_that_names_its_files():
    for folder in {path.parent for path in modules().values()} - {ROOT / "lm"}:
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 40, f"{folder}/README.md is longer than 40 lines"
        for path in folder.glob("*.py"):
            if path.name != "__init__.py":
                assert f"]({path.name})" in text, f"{folder}/README.md does not name {path.name}"


def test_the_readme_maps_every_folder_and_every_module_at_the_top():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in [*(ROOT / "lm").glob("*.py"), *{p.parent for p in modules().values()}]:
        place = path.relative_to(ROOT).as_posix()
        if place not in ("lm", "lm/__init__.py"):
            assert f"]({place})" in text, f"README.md does not name {place}"


def test_a_home_folder_is_put_into_a_path_in_one_place():
    """Path.expanduser raises for ~name of no user, also where a file is called so."""
    allowed = {"paths.py", "subject.py", "ownership.py"}  # of the person's own home, and no other
    found = {path.name for path in (ROOT / "lm").rglob("*.py") if "expanduser(" in path.read_text()}
    assert found == allowed
