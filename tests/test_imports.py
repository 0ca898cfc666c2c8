"""To import a module of lm changes nothing in the process: no handler, no patch, no path."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Modules are imported one after the other in a process that has loaded the libraries and nothing of
# lm: what an earlier one has loaded with it has been looked at with it.
WATCH = """
import importlib.util, json, logging, os, signal, sys, warnings
import hydra, matplotlib, numpy, omegaconf, optuna, rich, safetensors.torch, torch, wandb
import torch.distributed.fsdp
for name in ("lm_eval",):  # which sets a variable for its downloads
    if importlib.util.find_spec(name):
        importlib.import_module(name)

def state():
    found = {f"handler of {s.name}": signal.getsignal(s) for s in signal.valid_signals()
             if isinstance(s, signal.Signals)}
    for kind in (torch.nn.Module, torch.nn.Linear, torch.optim.Optimizer, torch.optim.AdamW,
                 torch.Tensor, logging.Logger):
        found |= {f"{kind.__name__}.{name}": value for name, value in vars(kind).items()}
    found["raiseExceptions"] = logging.raiseExceptions
    found |= {f"environment {name}": value for name, value in os.environ.items()}
    found["sys.path"] = list(sys.path)
    found["sys.argv"] = list(sys.argv)
    found["sys.stdout"], found["sys.stderr"] = sys.stdout, sys.stderr
    found["sys.excepthook"] = sys.excepthook
    found["log handlers"] = list(logging.getLogger().handlers)
    found["showwarning"] = warnings.showwarning
    found["threads"] = torch.get_num_threads()
    found["dtype"] = torch.get_default_dtype()
    found["deterministic"] = torch.are_deterministic_algorithms_enabled()
    found["random numbers"] = torch.random.get_rng_state().sum().item()
    found["directory"] = os.getcwd()
    return found

seen = set()
for name in sys.argv[1:]:
    if name in seen:
        continue
    before = state()
    try:
        importlib.import_module(name)
        after = state()
        keys = [k for k in {*before, *after} if before.get(k) is not after.get(k)
                and before.get(k) != after.get(k)]
    except BaseException as error:
        keys = [f"it raises {error!r}"]
    loaded = {m for m in sys.modules if m.startswith(("lm.", "hydra_plugins.lm_"))} - seen
    print(json.dumps([name, sorted(keys), sorted(loaded)]), flush=True)
    seen |= loaded
"""


def modules() -> list[str]:
    names = []
    for folder in ("lm", "hydra_plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names.append(".".join(parts).removesuffix(".__init__"))
    return sorted(names, key=lambda name: (name.count("."), name))  # verbs first: they load most


@pytest.mark.slow
def test_no_import_of_a_module_changes_the_process(tmp_path, command):
    """`import lm` set a handler for Ctrl-C; a module of optimizers replaced methods of torch."""
    pytest.importorskip("optuna")
    (tmp_path / "watch.py").write_text(WATCH, encoding="utf-8")
    done = command("watch", *modules())
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name for one, _, loaded in found for name in (one, *loaded)} == set(modules())
    assert {one: changes for one, changes, _ in found if changes} == {}
