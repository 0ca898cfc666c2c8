"""The architecture's import rule: a module of lm imports only from layers below its own."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    # L0: leaves
    {"sweep.arms", "sync", "failpoint", "signals", "onednn"},
    {"store"},
    {"config", "runtime", "metrics", "compat", "corpora.base", "models.kv_cache", "models.slots"}
    | {"optim.schedule", "optim.muon"},
    # L1: parts
    {"sweep.tuner"},
    {"cli", "jobs", "distributed", "models.base", "models.decode", "export.hf_config"}
    | {"corpora.pydocs", "corpora.download", "corpora.files", "corpora.grammar"},
    # L2
    {
        "optim.groups",
        "launch",
        "sweep.ranking",
        "tokenizers",
        "data",
        "models.bigram_counts",
        "models.ngram",
        "models.bigram",
    }
    | {"models.mlp", "models.gru", "models.transformer", "lens.probe"},
    # L3: wiring
    {"pipeline", "generate", "checkpoint", "floors"},
    {"mirror", "display"},
    {"artifact", "track", "lens.views", "check.conformance", "export.hf_weights"},
    # L4
    {"run", "lens.terminal", "guard", "origin"},
    {"report.records"},
    # L5: verbs
    {"evaluate", "sample", "tokenizer", "lens.subject", "update"} | {"export.files", "export.card"},
    {
        "mix",
        "lens.page",
        "export.__main__",
        "report.figures",
        "report.floors",
        "report.effects",
        "report.paired",
    },
    {"report.lr_range", "report.scaling"},
    {"lens.__main__", "report.experiment", "report.board", "check.doctor"},
    {"report.page", "check.__main__", "loop"},
    {"report.__main__"},
    {"train"},
]
EMPTY = {"", "check", "corpora", "export", "lens", "models", "optim", "report", "sweep"}
HEAVY = {
    "hydra": {"launch", "compat", "sweep.ranking", "sweep.tuner"},
    "omegaconf": {"config", "cli", "launch", "compat", "sweep.ranking", "sweep.tuner"},
    "wandb": {"mirror", "artifact"},
    "matplotlib": {"report.figures"},
    "optuna": {"sweep.tuner"},
    "safetensors": {"checkpoint", "export.files"},
}


def modules() -> dict[str, Path]:
    found = {}
    for path in (ROOT / "lm").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT / "lm").with_suffix("").parts)
        found[name.removesuffix("__init__").rstrip(".")] = path
    return found


def imports(path: Path) -> set[str]:
    """Every module named by an import statement, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def own(name: str) -> str | None:
    """Which module of lm an imported name means: lm.models.base.Model -> models.base."""
    parts = name.split(".")
    if parts[0] != "lm":
        return None
    known = modules()
    for n in range(len(parts), 0, -1):
        if (inner := ".".join(parts[1:n])) in known:
            return inner
    return ""


def layer(name: str) -> int:
    if name.startswith("tokenizers"):
        name = "tokenizers"
    return next(i for i, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("name", sorted(set(modules()) - EMPTY))
def test_a_module_imports_only_from_lower_layers(name):
    assert any(name in names or name.startswith("tokenizers") for names in LAYERS), (
        f"lm/{name} has no layer: add it to LAYERS and to the README's map"
    )
    for imported in filter(None, map(own, imports(modules()[name]))):
        if name.startswith("tokenizers"):
            assert imported.startswith("tokenizers"), "lm.tokenizers stands on its own"
        elif imported not in EMPTY:
            assert layer(imported) < layer(name), f"lm.{name} imports lm.{imported} from above"


@pytest.mark.parametrize("package", HEAVY)
def test_a_heavy_package_stays_in_its_files(package):
    users = {
        name
        for name, path in modules().items()
        if any(i.split(".")[0] == package for i in imports(path))
    }
    assert users <= HEAVY[package]


def test_the_tokenizers_load_only_numpy_and_regex():
    code = "import sys, lm.tokenizers; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    names = {name.split(".")[0] for name in loaded.stdout.split()}
    assert "regex" in names
    assert not names & {"torch", "hydra", "omegaconf", "wandb", "rich"}


@pytest.mark.parametrize("words", [["--help"], ["model.n_layr=3"]])
def test_help_and_configuration_errors_load_neither_torch_nor_wandb(words, tmp_path):
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lm.train", *words],
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
from lm import checkpoint, config, loop, runtime
from lm.lens import probe, views
runtime.configure(1, deterministic=True)
model = config.TransformerConfig(n_layer=1, n_embd=8, context_len=4).build(9)
for kind in config.options("optimizer").values():
    for optimizer in kind().build(model):
        model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        optimizer.load_state_dict(optimizer.state_dict())
probe.record(model, torch.zeros(1, 4, dtype=torch.long))
views.bigram(np.arange(100, dtype=np.uint16) % 9, 9, torch.arange(4))
folder = Path(sys.argv[1])
for name in ("transformer", "gru", "mlp", "bigram"):
    build = config.options("model")[name]().build
    save_file(build(9).state_dict(), folder / "model.safetensors")
    checkpoint.foresee(folder, lambda: build(9))
    try:
        checkpoint.foresee(folder, lambda: build(8))
        sys.exit(f"another {name} was not seen")
    except ValueError:
        pass
sys.exit("torch._dynamo" in sys.modules)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=env, check=True)


def test_no_module_is_called_like_one_of_the_standard_library():
    names = {name.rpartition(".")[2] for name in modules()} - {""}
    assert not names & (set(sys.stdlib_module_names) - {"tokenizers"})


def test_no_file_of_ours_can_run_what_a_stranger_wrote():
    for name, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not imports(path) & {"pickle", "marshal", "shelve", "dill"}, name
        for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
            text = ast.unparse(call.func)
            assert text not in {"eval", "exec", "yaml.load", "torch.load"}, f"{name}: {text}"
            for keyword in call.keywords:
                assert keyword.arg != "allow_pickle", f"{name}: {ast.unparse(call)}"


def test_the_readme_maps_every_module():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in modules().values():
        if path.name != "__init__.py":
            place = path.relative_to(ROOT).as_posix()
            assert f"({place})" in readme, f"README.md does not name {place}"
