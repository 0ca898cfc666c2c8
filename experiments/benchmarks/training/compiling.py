"""Seconds of a whole run with train.compile=auto, beside never, from cold, and with code kept.

    python experiments/benchmarks/training/compiling.py

The default run for each number of steps, in processes of their own, in turns; corpus and tokenizer
are there before. `from cold` has an empty cache of compiled code, `kept` finds that of the run
before. The machine must be idle. Medians of the turns, a quarter of an hour each; writes its block
of README.md.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
STEPS = (500, 2000)
TURNS = 1
# A column and its train.compile. `from cold` fills an empty cache of code, and `kept` reads it.
WAYS = {"never": "off", "from cold": "on", "kept": "on", "auto, from cold": "auto"}


def seconds(word: str, steps: int, folder: Path, code: Path) -> float:
    """Of one run, from the start of its process to its end."""
    out = tempfile.mkdtemp(dir=folder)
    words = [f"train.compile={word}", f"train.steps={steps}", f"hydra.run.dir={out}", "track=off"]
    env = os.environ | {"LM_CACHE_DIR": str(folder / "cache"), "TORCHINDUCTOR_CACHE_DIR": str(code)}
    start = time.perf_counter()
    command = [sys.executable, "-m", "lm.train", *words]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    lines = [f"| steps | {' | '.join(WAYS)} |", "|--:|" + "--:|" * len(WAYS)]
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        seconds("off", 1, folder, folder)  # corpus, tokenizer and tokens
        for steps in STEPS:
            found: dict[str, list[float]] = {name: [] for name in WAYS}
            for _ in range(TURNS):
                code = folder
                for name, word in WAYS.items():
                    if name.endswith("cold"):
                        code = Path(tempfile.mkdtemp(dir=folder))
                    found[name].append(seconds(word, steps, folder, code))
                    print(steps, name, f"{found[name][-1]:.1f}", flush=True)
            row = " | ".join(f"{statistics.median(found[name]):.0f}" for name in WAYS)
            lines.append(f"| {steps:,} | {row} |")
    block = "<!-- compiling -->\n" + "\n".join(lines) + "\n<!-- /compiling -->"
    print(block)
    page = (HERE / "README.md").read_text(encoding="utf-8")
    page = re.sub("<!-- compiling -->.*<!-- /compiling -->", lambda _: block, page, flags=re.S)
    (HERE / "README.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
