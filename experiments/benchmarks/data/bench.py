"""Text of any size: how long until the first step, how much memory, how fast shards are packed.

    python experiments/benchmarks/data/bench.py --gb 1 3 10      # 10 GB: about half an hour
    python experiments/benchmarks/data/bench.py --gb 10 --no-pack      # a quarter of that

Writes .parquet files of 250 MB of text, drawn word by word from Python's own modules, to a
temporary folder. For each size it starts `lm.train corpus=shards` with an empty cache, kills it by
SIGKILL after some steps, goes on, and compares the weights with those of a run that nothing
disturbed; then it packs the rest. The memory of training stands beside that of the same model on
1 MB of the same text. Writes results.csv and README.md's table. Needs pyarrow.
"""

import argparse
import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FILE_BYTES = 250_000_000
N_DISTINCT = 12  # files, 3 GB; the others are the same again
STEPS = 60
SETTINGS = ["corpus=shards", "corpus.path=web", "tokenizer.vocab_size=8192", "train.compile=off"]
SETTINGS += [
    "model.n_layer=2",
    "model.n_embd=64",
    "track=off",
    "train.threads=1",
    "train.log_every=1",
]
SETTINGS += [f"train.steps={STEPS}", "train.eval_every=0", "train.save_every=10"]
README = HERE / "README.md"


def words() -> tuple[list[str], np.ndarray]:
    """The words of Python's modules, and how often each stands there as a share of all."""
    counts: Counter[str] = Counter()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        counts.update(re.findall(r"\S+", path.read_text("utf-8", errors="replace")))
    total = counts.total()
    return list(counts), np.array([n / total for n in counts.values()])


def write_files(folder: Path, gb: float) -> None:
    import pyarrow
    from pyarrow import parquet

    known, shares = words()
    folder.mkdir()
    n_files = max(1, round(gb * 1e9 / FILE_BYTES))
    for number in range(n_files):
        if number >= N_DISTINCT:
            os.link(folder / f"{number % N_DISTINCT:04}.parquet", folder / f"{number:04}.parquet")
            continue
        rng = np.random.default_rng([0, number])
        writer = None
        n_bytes = 0
        while n_bytes < gb * 1e9 / n_files:
            drawn = rng.choice(len(known), (2000, 300), p=shares).tolist()
            documents = [" ".join([known[i] for i in row]) for row in drawn]
            table = pyarrow.table({"text": documents})
            writer = writer or parquet.ParquetWriter(folder / f"{number:04}.parquet", table.schema)
            writer.write_table(table)
            n_bytes += table.nbytes
        assert writer is not None
        writer.close()


def train(
    folder: Path, cache: str, out: str, kill_after: int = 0, words: tuple[str, ...] = ()
) -> dict[str, float]:
    """Run lm.train; seconds to its first step, and the most memory it and its packer had, MB."""
    environment = {**os.environ, "LM_CACHE_DIR": str(folder / cache)}
    command = [sys.executable, "-m", "lm.train", *SETTINGS, *words, f"hydra.run.dir={out}"]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE)
    metrics = folder / out / "metrics.jsonl"
    found = {"first": 0.0, "memory": 0.0, "packer": 0.0}
    while process.poll() is None:
        n_steps = len(metrics.read_text(encoding="utf-8").splitlines()) if metrics.exists() else 0
        if n_steps >= 2 and not found["first"]:  # the evaluation before the first step is a line
            found["first"] = time.perf_counter() - start
        found["memory"] = max(found["memory"], peak(process.pid))
        found["packer"] = max(found["packer"], *map(peak, children(process.pid)), 0.0)
        if kill_after and n_steps > kill_after:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return found
        time.sleep(0.1)
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode())
    return found


def peak(pid: int) -> float:
    """The most memory that a process has had, MB; 0 if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1e3 if found else 0.0


def children(pid: int) -> list[int]:
    try:
        return list(
            map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split())
        )
    except OSError:
        return []


def weights(folder: Path, out: str) -> bytes:
    return (folder / out / f"checkpoints/step_{STEPS:06}/model.safetensors").read_bytes()


def pack(folder: Path, gb: float) -> float:
    """MB of text a second, of those shards that training has left."""
    environment = {**os.environ, "LM_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", "lm.pack", *SETTINGS[:3]]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    lines = done.stdout.decode()
    n_built = len(re.findall(r"built in ([\d.]+) s", lines))
    return n_built / len(lines.splitlines()) * gb * 1e3 / seconds


def measure(gb: float, packs: bool) -> dict[str, object]:
    folder = Path(tempfile.mkdtemp(prefix="lm-data-"))
    try:
        write_files(folder / "web", gb)
        write_files(folder / "little", 0.001)
        little = ("corpus=files", "corpus.path=little")
        alone = train(folder, "cache", "alone", words=little)
        disturbed = train(folder, "cache", "run", kill_after=25)
        train(folder, "cache", "run")
        whole = train(folder, "cache2", "whole")
        same = weights(folder, "run") == weights(folder, "whole")
        return {
            "GB of text": gb,
            "first step, s": round(disturbed["first"], 1),
            "memory of training, MB": round(whole["memory"]),
            "on 1 MB, MB": round(alone["memory"]),
            "memory of packing, MB": round(whole["packer"]),
            "packed, MB/s": round(pack(folder, gb), 1) if packs else "",
            "killed and resumed": "the same bits" if same else "OTHER BITS",
        }
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gb", type=float, nargs="+", default=[1.0])
    parser.add_argument("--no-pack", action="store_true", help="leave out the speed of packing")
    args = parser.parse_args()
    rows = []
    for gb in args.gb:
        rows.append(measure(gb, not args.no_pack))
        print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="; ", flush=True)
        write(rows)


def write(rows: list[dict[str, object]]) -> None:
    """results.csv, and the same as README.md's table."""
    with open(HERE / "results.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    lines = [list(rows[0]), ["--:"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    block = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = README.read_text(encoding="utf-8")
    text = re.sub(
        "<!-- table -->.*<!-- /table -->",
        lambda _: f"<!-- table -->\n{block}\n<!-- /table -->",
        text,
        flags=re.S,
    )
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
