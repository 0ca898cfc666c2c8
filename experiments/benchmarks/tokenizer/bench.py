"""Speed and memory of lm.tokenizers beside rustbpe, tiktoken and Hugging Face tokenizers.

python experiments/benchmarks/tokenizer/bench.py            # peers, hostile text and scale: README
python experiments/benchmarks/tokenizer/bench.py peers:stdlib hostile   # some of the parts

One thread each, in one process, in alternating order; medians over the rounds, and the median of
each round's ratio to ours. LM_DATA_DIR holds shakespeare.txt; without it that corpus is left out.
"""

import csv
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from texts import FAMILY, corpora, hostile_texts, installed, stdlib, write_grammar

os.environ["RAYON_NUM_THREADS"] = "1"  # read by the Rust libraries when they load
os.environ["TOKENIZERS_PARALLELISM"] = "false"

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
PART = 500_000  # characters that the slowest encoder gets
SCALE = (10, 100, 1000)  # megabytes
FIELDS = ["part", "corpus", "work", "system", "seconds", "mb_per_s", "times_ours", "rss_mb", "n"]


def main(parts: list[str]) -> None:
    from report import machine, write_report  # beside this file

    rows = read_rows()
    machines = json.loads((HERE / "machines.json").read_text(encoding="utf-8"))
    for word in parts:
        part, _, corpus = word.partition(":")
        machines[part] = machine()
        new = PARTS[part](corpus) if corpus else PARTS[part]()
        redone = {key(row) for row in new}
        rows = [row for row in rows if key(row) not in redone] + new
    rows.sort(key=lambda row: list(PARTS).index(row["part"]))
    with open(HERE / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (HERE / "machines.json").write_text(json.dumps(machines, indent=1) + "\n", encoding="utf-8")
    write_report(HERE)


def key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["part"], row["corpus"], row["work"]


def read_rows() -> list[dict[str, str]]:
    if not (HERE / "results.csv").exists():
        return []
    with open(HERE / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row(
    part: str, corpus: str, work: str, system: str, seconds: float, n_byte: int, **more
) -> dict:
    speed = f"{n_byte / seconds / 1e6:.2f}"
    out = {"part": part, "corpus": corpus, "work": work, "system": system}
    out |= {"seconds": f"{seconds:.4f}", "mb_per_s": speed, **more}
    print(*out.values(), flush=True)
    return out


def timed(work: Callable[[], object]) -> float:
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(systems: dict[str, Callable], n_round: int) -> dict[str, list[float]]:
    """Seconds of each system in each round; every round starts with another system."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    names = list(systems)
    for k in range(n_round):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            seconds[name].append(timed(systems[name]))
    return seconds


def report(part: str, corpus: str, work: str, n_byte: int, seconds: dict[str, list[float]]) -> list:
    """One row a system; `times_ours` is how many times as long as we it takes."""
    ours = seconds[next(iter(seconds))]
    out = []
    for system, times in seconds.items():
        ratio = statistics.median(t / o for t, o in zip(times, ours, strict=True))
        median = statistics.median(times)
        more = {"times_ours": f"{ratio:.2f}", "n": len(times)}
        out.append(row(part, corpus, work, system, median, n_byte, **more))
    return out


def peers(only: str = "") -> list[dict]:
    rows = []
    for corpus, documents in corpora().items():
        if only in ("", corpus):
            rows += peers_on(corpus, documents, 4096 if corpus == "stdlib" else 1024)
    return rows


def peers_on(corpus: str, documents: list[str], vocab_size: int) -> list[dict]:
    text = "".join(documents)
    n_byte = len(text.encode())
    rows = report("peers", corpus, f"train {vocab_size}", n_byte, train(documents, vocab_size))
    ours, tiktoken, rust, hf = tokenizers_of(documents, vocab_size)
    ids, array = ours.encode_ordinary(text), ours.encode_to_numpy(text)
    assert ids == tiktoken.encode_ordinary(text)
    assert hf.encode(text[:200_000]).ids == ours.encode_ordinary(text[:200_000])

    lists = {
        "ours": lambda: ours.encode_ordinary(text),
        "tiktoken": lambda: tiktoken.encode_ordinary(text),
        "rustbpe": lambda: rust.encode(text),
    }
    seconds = alternate(lists, ROUNDS)
    part = text[:500_000]
    share = len(part.encode()) / n_byte  # the slowest peer encodes a part, scaled to the whole
    seconds["HF tokenizers"] = [timed(lambda: hf.encode(part)) / share for _ in range(ROUNDS)]
    rows += report("peers", corpus, "encode to a list", n_byte, seconds)
    kinds = {
        "encode to numpy": {
            "ours": lambda: ours.encode_to_numpy(text),
            "tiktoken": lambda: tiktoken.encode_to_numpy(text),
        },
        "decode a list": {
            "ours": lambda: ours.decode(ids),
            "tiktoken": lambda: tiktoken.decode(ids),
            "rustbpe": lambda: rust.decode(ids),
        },
        "decode numpy": {
            "ours": lambda: ours.decode(array),
            "tiktoken": lambda: tiktoken.decode(array.tolist()),
        },
    }
    for work, systems in kinds.items():
        rows += report("peers", corpus, work, n_byte, alternate(systems, ROUNDS))
    return rows + short_texts(corpus, text, ours, tiktoken)


def short_texts(corpus: str, text: str, ours, tiktoken) -> list[dict]:
    short = [text[k : k + 300] for k in range(0, 300_000, 300)]
    short_ids = [ours.encode_ordinary(s) for s in short]
    kinds = {
        "encode 300 characters, 1,000 times": {
            "ours": lambda: list(map(ours.encode_ordinary, short)),
            "tiktoken": lambda: list(map(tiktoken.encode_ordinary, short)),
        },
        "decode these": {
            "ours": lambda: list(map(ours.decode, short_ids)),
            "tiktoken": lambda: list(map(tiktoken.decode, short_ids)),
        },
    }
    n_byte = len("".join(short).encode())
    rows = []
    for work, systems in kinds.items():
        rows += report("peers", corpus, work, n_byte, alternate(systems, ROUNDS))
    return rows


def train(documents: list[str], vocab_size: int) -> dict[str, list[float]]:
    import rustbpe
    import tokenizers as hf

    from lm import tokenizers
    from lm.tokenizers.patterns import GPT4

    def ours() -> None:
        tokenizers.train("bpe", documents, vocab_size=vocab_size, specials=())

    def rust() -> None:
        rustbpe.Tokenizer().train_from_iterator(documents, vocab_size, pattern=GPT4)

    def hugging_face() -> None:
        pieces = [d[k : k + 20_000] for d in documents for k in range(0, len(d), 20_000)]
        tokenizer = hf.Tokenizer(hf.models.BPE())
        split = hf.pre_tokenizers.Split(hf.Regex(GPT4), "isolated")
        level = hf.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = hf.pre_tokenizers.Sequence([split, level])
        alphabet = hf.pre_tokenizers.ByteLevel.alphabet()
        trainer = hf.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(pieces, trainer)

    return alternate({"ours": ours, "rustbpe": rust, "HF tokenizers": hugging_face}, ROUNDS)


def tokenizers_of(documents: list[str], vocab_size: int) -> tuple:
    """The same vocabulary in all four; merges of ours and rustbpe are compared on the way."""
    import rustbpe
    import tiktoken
    import tokenizers as hf

    from lm import tokenizers
    from lm.tokenizers import formats
    from lm.tokenizers.patterns import GPT4

    ours = tokenizers.train("bpe", documents, vocab_size=vocab_size, specials=())
    rust = rustbpe.Tokenizer()
    rust.train_from_iterator(documents, vocab_size, pattern=GPT4)
    ranks = {bytes(token): i for token, i in rust.get_mergeable_ranks()}
    assert ranks == {ours.token_bytes(i): i for i in range(vocab_size)}
    encoding = tiktoken.Encoding("b", pat_str=GPT4, mergeable_ranks=ranks, special_tokens={})
    with tempfile.TemporaryDirectory() as folder:
        formats.to_hf(ours, Path(folder) / "t.json")
        theirs = hf.Tokenizer.from_file(str(Path(folder) / "t.json"))
    return ours, encoding, rust, theirs


def cold(only: str = "") -> list[dict]:
    """Processor time of the first encoding of a text in a new process, and of the second."""
    rows = []
    for corpus, documents in corpora().items():
        if only in ("", corpus):
            rows += cold_on(corpus, documents, 4096 if corpus == "stdlib" else 1024)
    return rows


def cold_on(corpus: str, documents: list[str], vocab_size: int) -> list[dict]:
    from lm import tokenizers
    from lm.tokenizers import formats

    ours = tokenizers.train("bpe", documents, vocab_size=vocab_size, specials=())
    seconds: dict[str, dict[str, list[float]]] = {"encode, first call": {}, "encode again": {}}
    digests = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours.save(folder / "t.json")
        formats.to_hf(ours, folder / "hf.json")
        formats.to_tiktoken(ours, folder / "t.tiktoken")
        (folder / "documents.json").write_text(json.dumps(documents), encoding="utf-8")
        systems = list(ENCODERS)
        for k in range(ROUNDS):
            for system in systems[k % len(systems) :] + systems[: k % len(systems)]:
                command = [sys.executable, __file__, "--first", system, name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                *both, digest = done.stdout.split()
                digests.add(digest)
                for work, value in zip(seconds, both, strict=True):
                    seconds[work].setdefault(system, []).append(float(value))
    assert len(digests) == 1, "all systems give the same ids"
    n_byte = len("".join(documents).encode())
    rows = []
    for work, times in seconds.items():
        in_order = {system: times[system] for system in ENCODERS}
        rows += report("cold", corpus, work, n_byte, in_order)
    return rows


def first(system: str, folder: Path) -> None:
    """Print the processor time of the first and of the second encoding, and a digest of ids."""
    documents = json.loads((folder / "documents.json").read_text(encoding="utf-8"))
    text = "".join(documents)
    encode = ENCODERS[system](folder, documents)
    part = text[:PART]
    measured = part if system == "HF tokenizers" else text  # scaled to the whole
    share = len(measured.encode()) / len(text.encode())
    gc.collect()
    for _ in range(2):
        start = time.process_time()
        encode(measured)
        print((time.process_time() - start) / share)
    print(zlib.crc32(np.array(encode(part), np.uint32).tobytes()))


def encoder_of_ours(folder: Path, documents: list[str]) -> Callable:
    from lm import tokenizers

    return tokenizers.load(folder / "t.json").encode_to_numpy


def encoder_of_gigatoken(folder: Path, documents: list[str]) -> Callable:
    import gigatoken

    return gigatoken.Tokenizer.from_tiktoken(folder / "t.tiktoken", "gpt4", {}).encode


def encoder_of_tiktoken(folder: Path, documents: list[str]) -> Callable:
    import tiktoken
    from tiktoken.load import load_tiktoken_bpe

    from lm.tokenizers.patterns import GPT4

    ranks = load_tiktoken_bpe(str(folder / "t.tiktoken"))
    encoding = tiktoken.Encoding("b", pat_str=GPT4, mergeable_ranks=ranks, special_tokens={})
    return encoding.encode_ordinary


def encoder_of_rustbpe(folder: Path, documents: list[str]) -> Callable:
    import rustbpe

    from lm import tokenizers
    from lm.tokenizers.patterns import GPT4

    rust = rustbpe.Tokenizer()
    rust.train_from_iterator(documents, tokenizers.load(folder / "t.json").vocab_size, pattern=GPT4)
    return rust.encode


def encoder_of_hf(folder: Path, documents: list[str]) -> Callable:
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(folder / "hf.json"))
    return lambda text: theirs.encode(text).ids


# Each in the form of ids that it gives soonest, a list or an array.
ENCODERS = {
    "ours": encoder_of_ours,
    "gigatoken": encoder_of_gigatoken,
    "tiktoken": encoder_of_tiktoken,
    "rustbpe": encoder_of_rustbpe,
    "HF tokenizers": encoder_of_hf,
}


def processes() -> list[dict]:
    """One and two processes of ours, starting them included, beside tiktoken on one thread."""
    import tiktoken

    from lm import tokenizers

    ours = tokenizers.train("bpe", stdlib(), vocab_size=4096, specials=())
    ranks = {ours.token_bytes(i): i for i in range(4096)}
    rust = tiktoken.Encoding(
        "b", pat_str=ours.splitter.pattern, mergeable_ranks=ranks, special_tokens={}
    )
    documents = installed()
    n_byte = sum(len(d.encode()) for d in documents)

    def run(n_proc: int) -> None:
        ours.forget_chunks()  # new processes know no chunks either
        for _ in ours.encode_documents(documents, n_proc=n_proc):
            pass

    def tiktoken_run() -> None:
        for document in documents:
            rust.encode_ordinary(document)

    systems = {"ours, 2 processes": lambda: run(2), "ours, 1 process": lambda: run(1)}
    seconds = alternate(systems | {"tiktoken": tiktoken_run}, min(ROUNDS, 3))
    corpus = f"installed packages, {n_byte / 1e6:.0f} MB"
    return report("processes", corpus, "encode documents to numpy", n_byte, seconds)


def merges() -> list[dict]:
    """Our merge loop in numpy beside one in plain Python, on the same counted chunks."""
    from plain_loop import learn  # beside this file

    from lm.tokenizers.bpe_train import learn_merges
    from lm.tokenizers.count import count_chunks
    from lm.tokenizers.split import Splitter

    rows = []
    for corpus, documents in corpora().items():
        counts = count_chunks(documents, Splitter("gpt4"))
        n_merge = 3840 if corpus == "stdlib" else 768
        systems = {"numpy": partial(learn_merges, counts, n_merge)}
        systems["plain Python"] = partial(learn, counts, n_merge)
        assert systems["numpy"]() == systems["plain Python"]()
        n_byte = sum(len(d.encode()) for d in documents)
        rows += report("merges", corpus, f"{n_merge} merges", n_byte, alternate(systems, 3))
    return rows


def hostile() -> list[dict]:
    """A megabyte of one kind, cold: encode, decode, compare."""
    from lm import tokenizers

    # Runs in the training text: so that there are merges to apply, as in vocabularies of the web.
    runs = [c * k for c in ["a", " ", FAMILY] for k in (2, 4, 8, 16, 32, 64)]
    ours = tokenizers.train("bpe", [*stdlib(), *runs * 9], vocab_size=4096)
    rows = []
    for name, text in hostile_texts().items():
        n_byte = len(text.encode())
        ours.forget_chunks()
        ids: list[int] = []
        encode = timed(lambda text=text, ids=ids: ids.extend(ours.encode_ordinary(text)))
        assert ours.decode(ids) == text
        rows.append(row("hostile", name, "encode", "ours", encode, n_byte, n=1))
        one = timed(
            lambda text=text: tokenizers.train(
                "bpe", [text, "ab" * 999], vocab_size=320, pattern=r"[\s\S]+"
            )
        )
        rows.append(row("hostile", name, "train as one chunk", "ours", one, n_byte, n=1))
    return rows


def scale(only: str = "") -> list[dict]:
    """Grammar text of growing size (10 MB, repeated): train and pack, a process for each.

    BENCH_DIR may name a folder that keeps the text, whose writing is not measured.
    """
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(os.environ.get("BENCH_DIR", temporary))
        for size in SCALE:
            text = folder / f"{size}.txt"
            if only and not only.startswith(f"{size}-"):
                continue
            n_byte = write_grammar(text, size * 1_000_000)
            for work in ("train", "pack"):
                if only not in ("", f"{size}-{work}"):
                    continue
                command = [sys.executable, __file__, "--child", work, str(text)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                result = json.loads(done.stdout)
                more = {"rss_mb": f"{result['rss_mb']:.0f}", "n": 1}
                corpus, seconds = f"grammar {size} MB", result["seconds"]
                rows.append(row("scale", corpus, work, "ours", seconds, n_byte, **more))
    return rows


def child(work: str, path: Path) -> None:
    """Train on the text or pack it, in documents of about 64 kB that are read as they come."""
    from rich.progress import Progress

    from lm import tokenizers

    trained, packed = path.with_suffix(".json"), path.with_suffix(".tokens")
    start = time.perf_counter()
    with Progress(disable=not sys.stderr.isatty()) as bar, open(path, encoding="utf-8") as file:
        task = bar.add_task(work, total=path.stat().st_size)

        def documents():
            while lines := file.readlines(1 << 16):
                text = "".join(lines)
                bar.advance(task, len(text))
                yield text

        if work == "train":
            tokenizers.train("bpe", documents(), vocab_size=1024).save(trained)
        else:
            tokenizer = tokenizers.load(trained)
            with open(packed, "wb") as out:
                for ids in tokenizer.encode_documents(documents()):
                    out.write(ids.tobytes())
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1024 if sys.platform == "linux" else 1
    )
    print(json.dumps({"seconds": seconds, "rss_mb": peak / 1e6}))


PARTS = {
    "peers": peers,
    "cold": cold,
    "processes": processes,
    "merges": merges,
    "hostile": hostile,
    "scale": scale,
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--first"]:
        first(sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1:] or list(PARTS))
