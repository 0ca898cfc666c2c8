"""What is fuzzed: for each kind of input a function that makes one and has lm read it.

    check = targets.TARGETS["settings"](home)     # home: a folder of its own
    check(random.Random("0/settings/17"))         # any error but those of a user fails

Each finds its good inputs in the folder of a small run, `Home`.
"""

import contextlib
import functools
import gzip
import json
import logging
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from lm import config, tokenizers, train
from lm.check import doctor
from lm.corpora import formats as corpus_formats
from lm.data import token_files
from lm.huggingface import config_json, weights
from lm.launch import cli, compose, values, words
from lm.record import checkpoint, schemas
from lm.record.run import Run
from lm.report import board, folding, links, records
from lm.settings import commands
from lm.settings.yaml_files import plain_yaml
from lm.sweep import arms, study
from lm.system import files, store
from lm.system.errors import DamagedError
from lm.system.schemas import CorpusRecord
from lm.tokenizers import formats
from tests.fuzz import mutations
from tests.helpers import TINY

Check = Callable[[random.Random], object]
SMALL_RUN = (*TINY, "model.n_layer=1", "model.n_head=2", "model.n_embd=8", "model.context_len=8")


class Home:
    """A folder with a finished run, and room for files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        text = folder / "toy.txt"
        lines = [f"{i} plus {i % 7} is {i + i % 7}, said the cat." for i in range(300)]
        text.write_text("\n".join(lines))
        cfg = compose.compose_run(
            ["corpus=files", f"corpus.path={text}", *SMALL_RUN, "train.steps=2", "track=off"]
        )
        (self.run / ".hydra").mkdir(parents=True)
        (self.run / ".hydra" / "overrides.yaml").write_text("- model=transformer\n- seed=0\n")
        result = '{"overrides": ["seed=0"], "status": "ok", "value": 5.0, "error": null}'
        (self.run / "result.json").write_text(result)
        (self.run / "wandb.json").write_text('{"id": "abc", "first": 3, "url": "https://a.b/c"}')
        config.save(cfg, self.run / config.RESOLVED)
        train.train(cfg, self.run)

    def room(self, name: str) -> Path:
        """A new folder."""
        path = self.folder / "rooms" / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


# ---------------------------------------------------------------------------------- tokenizers


def bpe() -> tokenizers.BPETokenizer:
    return tokenizers.BPETokenizer.of_merges([(104, 105, 256), (256, 33, 257)], pattern="gpt2")


def own_pattern() -> tokenizers.BPETokenizer:
    return tokenizers.BPETokenizer.of_merges([(97, 98, 256)], pattern=r"\w+|\s+|[^\w\s]+")


def tokenizer_json(home: Home) -> Check:
    """Our own tokenizer.json: what is read writes itself again, and its ids come back as text."""
    made = [bpe(), own_pattern(), tokenizers.ByteTokenizer(("<|endoftext|>", "<s>"))]
    seeds = [t.to_json().encode() for t in (*made, tokenizers.CharTokenizer("abc é中hi!\n"))]

    def check(rng: random.Random) -> None:
        raw = mutations.of_json(rng, rng.choice(seeds))
        tokenizer = tokenizers.from_json(raw.decode("utf-8", "replace"))
        again = tokenizers.from_json(tokenizer.to_json())
        assert again.fingerprint == tokenizer.fingerprint
        ids = tokenizer.encode_ordinary("abc ab hi! é\n")
        assert tokenizer.decode(ids) == "abc ab hi! é\n"

    return check


def tokenizer_texts(home: Home) -> Check:
    """Any text to ids and back, in every way that there is."""
    peers = [bpe(), own_pattern(), tokenizers.ByteTokenizer(("<|endoftext|>", "<|a|>"))]
    peers += [
        tokenizers.train("bpe", ["the cat sat on the mat " * 9, "a b  c\n\nd" * 9], vocab_size=272)
    ]
    peers += [
        tokenizers.train("bpe", ["aaaa bbbb 1234 'll 've" * 9], vocab_size=270, pattern="gpt2")
    ]
    letters = "ab \n\t'sSlL1\u00b2\u0663e\u0301\u200d\U0001f468\ufeff\0\r\u2028"
    marks = ["<|endoftext|>", "<|a|>", "<|endoft", "'\u017f", "\r\n \n", " " * 99]

    def drawn(rng: random.Random) -> str:
        parts = []
        for _ in range(rng.randint(0, 6)):
            n = rng.randint(0, 30)
            kinds = [
                "".join(rng.choices(letters, k=n)),
                rng.choice(marks),
                rng.choice(letters) * rng.randint(1, 400),
                "".join(chr(rng.randrange(0x110000)) for _ in range(n)),
            ]
            parts.append(rng.choice(kinds))
        return "".join(parts)

    def check(rng: random.Random) -> None:
        tokenizer = rng.choice(peers)
        text = drawn(rng)
        text.encode()  # a lone surrogate is no text, here as everywhere
        ids = tokenizer.encode_ordinary(text)
        assert tokenizer.decode(ids, errors="strict") == text
        assert tokenizer.encode_to_numpy(text).tolist() == ids
        (pieces,) = tokenizer.encode_documents([text])
        assert pieces.tolist() == ids
        allowed = rng.choice(["all", frozenset()])
        cuts = sorted(rng.randint(0, len(text)) for _ in range(rng.randint(0, 5)))
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        whole = tokenizer.encode(text, allowed, ())
        assert list(tokenizer.encode_iterable(parts, allowed, ())) == whole
        assert tokenizer.decode(whole) == text
        raw = rng.randbytes(rng.randint(0, 60))
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(raw)) == raw
        tokenizer.decode([rng.choice([*mutations.INTS, *mutations.FLOATS, "", None, 97])])

    return check


def split_pattern(home: Home) -> Check:
    """A tokenizer with a split pattern that a stranger wrote."""
    atoms = [
        r"\p{L}",
        r"\p{N}",
        r"\s",
        r"\S",
        ".",
        "a",
        "[^a]",
        "(?:a|b)",
        r"\w",
        " ",
        "^",
        "$",
        r"\b",
    ]
    atoms += [
        "(?=a)",
        "(?!b)",
        r"(?<=\s)",
        "()",
        "(a)",
        r"\1",
        "[a-z&&[^b]]",
        "(?i:'s|'t)",
        r"[\r\n]",
    ]
    atoms += ["(?>a+)", "a|ab", r"\X", r"\R", "(?R)", "(?|a|b)", r"\N{DIGIT ONE}", "[[:alpha:]]"]
    signs = ["", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "++", "*?", "{0}", "{99}"]

    def pattern(rng: random.Random, depth: int = 2) -> str:
        parts = []
        for _ in range(rng.randint(1, 4)):
            nested = depth and rng.random() < 0.4
            part = f"(?:{pattern(rng, depth - 1)})" if nested else rng.choice(atoms)
            parts.append(part + rng.choice(signs))
        return rng.choice(["", "|"]).join(parts)

    def check(rng: random.Random) -> None:
        state = json.loads(own_pattern().to_json())
        state["pattern"] = pattern(rng) + rng.choice(["", "", r"|\s+|\S", "|[\\s\\S]", "|."])
        if rng.random() < 0.1:
            state["pattern"] = mutations.text(rng, state["pattern"])
        tokenizer = tokenizers.from_json(json.dumps(state))
        text = "".join(rng.choices("ab \n1é", k=rng.choice([5, 50, 500]))) + "a" * 30
        assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text

    return check


def ranks_of_tiktoken(home: Home) -> Check:
    path = home.room("tiktoken") / "a.tiktoken"
    formats.to_tiktoken(bpe(), path)
    good = path.read_bytes()

    def check(rng: random.Random) -> None:
        lines = good.split(b"\n")
        for _ in range(rng.randint(0, 2)):
            at = rng.randrange(len(lines))
            lines[at] = rng.choice(
                [lines[at - 1], damage(rng, lines[at]), b"", b"aGkh 3", b"YQ== -1"]
            )
        raw = b"\n".join(lines)
        path.write_bytes(raw if rng.random() < 0.7 else mutations.damaged(rng, raw))
        tokenizer = formats.from_tiktoken(path, "gpt2", rng.choice([{}, {"<s>": 300}, {"<s>": 5}]))
        assert tokenizer.decode(tokenizer.encode_ordinary("hi!")) == "hi!"

    return check


damage = mutations.damaged


def tokenizer_of_gpt2(home: Home) -> Check:
    """vocab.json and merges.txt."""
    folder = home.room("gpt2")
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + n) for n in range(68)]
    vocab = {letter: i for i, letter in enumerate(letters)}
    vocab |= {"hi": 256, "hi!": 257, "<|endoftext|>": 258}
    good = {"vocab.json": json.dumps(vocab).encode(), "merges.txt": b"#version: 0.2\nh i\nhi !\n"}

    def check(rng: random.Random) -> None:
        for name, content in good.items():
            (folder / name).write_bytes(content)
        if rng.random() < 0.5:
            raw = mutations.of_json(rng, good["vocab.json"])
            (folder / "vocab.json").write_bytes(raw)
        else:
            more = b"".join(rng.choice([b"h i\n", b"i\n", b" a b\n", b"a b c\n"]) for _ in range(2))
            raw = rng.choice([good["merges.txt"], good["merges.txt"] + more])
            (folder / "merges.txt").write_bytes(mutations.damaged(rng, raw))
        tokenizer = formats.from_hf_folder(folder)
        assert tokenizer.decode(tokenizer.encode_ordinary("hi! é\n")) == "hi! é\n"

    return check


def folder_of_hugging_face(home: Home) -> Check:
    """A model, its tokenizer and its weights, of which one file or two are changed."""
    folder = home.room("hf")
    cfg = config.TransformerConfig(
        n_layer=1, n_head=2, n_embd=8, context_len=6, activation="swiglu", qk_norm=False
    )
    tokenizer = own_pattern()
    formats.to_hf(tokenizer, folder / "tokenizer.json")
    V = tokenizer.vocab_size
    (folder / "config.json").write_text(json.dumps(config_json.to_hf(cfg, V, V - 1)))
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    made = {name: t.contiguous().clone() for name, t in weights.to_hf(cfg.build(V)).items()}
    save_file(made, folder / "model.safetensors")
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    index = {"metadata": {}, "weight_map": dict.fromkeys(made, "model.safetensors")}
    good_index = json.dumps(index).encode()

    def check(rng: random.Random) -> None:
        for name, content in good.items():
            (folder / name).write_bytes(content)
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        for name in rng.sample(sorted(good), rng.choice([1, 1, 2])):
            how = mutations.of_safetensors if name.endswith("safetensors") else mutations.of_json
            (folder / name).write_bytes(how(rng, good[name]))
        if rng.random() < 0.1:
            raw = mutations.of_json(rng, good_index)
            (folder / "model.safetensors.index.json").write_bytes(raw)
        settings = config.TransformerConfig(**config_json.settings_of(folder))
        tokenizer = formats.from_hf_folder(folder)
        weights.check_fits(folder, settings)
        model = settings.build(tokenizer.vocab_size)
        weights.load(folder, model)
        with torch.inference_mode():
            ids = torch.tensor([tokenizer.encode_ordinary("ab")[:1]])
            model(ids)  # which large weights may make infinite

    return check


# ------------------------------------------------------------------------------ run directories


def records_of_a_run(home: Home) -> Check:
    """Each JSON file of a run, a sweep, a cache: as its reader reads it."""
    folder = home.room("records")
    step = checkpoint.folder(home.run, 2)
    kinds = {
        "summary.json": (schemas.Summary, home.run / "summary.json"),
        "data.json": (schemas.DataRecord, home.run / "data.json"),
        "code.json": (schemas.CodeRecord, home.run / "code.json"),
        "wandb.json": (schemas.WandbRecord, home.run / "wandb.json"),
        "state.json": (schemas.CheckpointRecord, step / "state.json"),
        "manifest.json": (store.Manifest, step / "manifest.json"),
    }
    (corpus,) = (home.folder / "cache").glob("corpora-*")
    kinds["corpus.json"] = (CorpusRecord, corpus / "corpus.json")
    seeds = {name: path.read_bytes() for name, (_, path) in kinds.items()}
    seeds["result.json"] = (home.run / "result.json").read_bytes()
    seeds["study.json"] = (
        b'{"journal": "optuna.journal", "study": "lm", "pruner": "none", "warmup": 0}'
    )
    seeds["doctor.json"] = (home.run / "doctor.json").read_bytes()
    seeds[".arms/3.json"] = b'{"directory": "bigram/3"}'
    (folder / ".arms").mkdir()
    names = sorted(seeds)

    def check(rng: random.Random) -> None:
        name = rng.choice(names)
        path = folder / name
        path.write_bytes(mutations.of_json(rng, seeds[name]))
        if name == "result.json":
            result = arms.read_result(path)
            assert result.status != "ok" or np.isfinite(result.value)
        elif name == "study.json":
            study.read_description(folder)
        elif name == "doctor.json":
            run = records.Record(folder, {}, [], [], None, None)
            assert json.dumps(links.of_run(run, folder))
        elif name == ".arms/3.json":
            arms.place(folder, 3)
        elif name == "corpus.json":
            files.read_record(path, CorpusRecord).file_names()
        else:
            files.read_record(path, kinds[name][0])

    return check


def curves(home: Home) -> Check:
    """metrics.jsonl and samples.jsonl, with a summary that fits or does not: as a report shows
    them."""
    out = home.room("curves")
    for name in (config.RESOLVED, "data.json", "code.json", "summary.json"):
        shutil.copy(home.run / name, out / name)
    whole = records.read(home.run)
    seeds = {name: (home.run / name).read_bytes() for name in ("metrics.jsonl", "samples.jsonl")}
    end = (home.run / "summary.json").read_bytes()

    def check(rng: random.Random) -> None:
        for name, content in seeds.items():
            (out / name).write_bytes(mutations.of_lines(rng, content))
        summary = None
        if rng.random() < 0.7:
            (out / "summary.json").write_bytes(
                end if rng.random() < 0.5 else mutations.of_json(rng, end)
            )
            summary = schemas.read_part(out, schemas.Summary)
        rows = schemas.read_rows(out / "metrics.jsonl")
        run = records.Record(out, dict(whole.settings), [], rows, summary, None, whole.data)
        arm = folding.Arm("a", [run])
        view = board.view([folding.Ranking([arm])], counts=False)
        assert json.dumps(files.finite(view), default=str, allow_nan=False)
        for rule in doctor.LOG_RULES:
            rule(run)

    return check


def settings(home: Home) -> Check:
    """config.resolved.yaml."""
    path = home.room("settings") / config.RESOLVED
    good = (home.run / config.RESOLVED).read_bytes()
    nested = plain_yaml(good.decode())

    def check(rng: random.Random) -> None:
        path.write_bytes(mutations.of_yaml(rng, good, nested))
        with contextlib.suppress(ValueError):
            records.read(path.parent)
        cfg = config.load(path)
        assert config.load(config.saved_values(path)) == cfg

    return check


def checkpoints(home: Home) -> Check:
    """The parts of a checkpoint, with a manifest that fits them again."""
    out = home.room("checkpoints")
    folder = checkpoint.folder(out, 2)
    folder.mkdir(parents=True)
    good = {path.name: path.read_bytes() for path in checkpoint.folder(home.run, 2).iterdir()}
    cfg = config.load(home.run / config.RESOLVED)
    vocab_size = tokenizers.load(home.run / "tokenizer.json").vocab_size

    def check(rng: random.Random) -> None:
        for path in (out / "checkpoints").iterdir():  # one that was set aside
            if path != folder:
                shutil.rmtree(path)
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        changed = rng.sample(sorted(good), rng.choice([1, 1, 2]))
        for name, content in good.items():
            if name in changed:
                is_json = name.endswith("json")
                how = mutations.of_json if is_json else mutations.of_safetensors
                content = how(rng, content)
            (folder / name).write_bytes(content)
        if store.MANIFEST not in changed:
            (folder / store.MANIFEST).unlink()
            store.seal(folder)
        checkpoint.check_newest_fits(out, lambda: cfg.model.build(vocab_size))
        model = cfg.model.build(vocab_size)
        optimizers = cfg.optimizer.build(model)
        checkpoint.resume(out, model, optimizers)
        if rng.random() < 0.2:
            model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
            for optimizer in optimizers:
                optimizer.step()

    return check


def tokens(home: Home) -> Check:
    """Token files and what stands beside them."""
    folder = home.room("tokens")
    (source,) = (home.folder / "cache").glob("tokens-*")
    good = {path.name: path.read_bytes() for path in source.iterdir()}
    tokenizer = tokenizers.load(home.run / "tokenizer.json")

    def check(rng: random.Random) -> None:
        changed = rng.sample(sorted(good), rng.choice([1, 1, 2]))
        for name, content in good.items():
            if name in changed:
                how = mutations.of_json if name.endswith("json") else mutations.damaged
                content = how(rng, content)
                if name.endswith("bin") and rng.random() < 0.5:  # as long as before
                    content = (content + good[name])[: len(good[name])]
            (folder / name).write_bytes(content)
        with contextlib.suppress(DamagedError):
            store.verify(folder)
        token_files.check(folder, tokenizer)
        for split in ("train", "val"):
            ids = token_files.load(folder, split)
            assert not len(ids) or int(ids.max()) < tokenizer.vocab_size

    return check


def journal(home: Home) -> Check:
    """The journal of a search."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    out = home.room("journal")
    (out / study.STUDY).write_text(json.dumps({"pruner": "median"}))
    there = study.open_study(out)
    distribution = {
        "a": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
        "b": optuna.distributions.CategoricalDistribution(["x", "y"]),
        "c": optuna.distributions.IntDistribution(1, 8),
    }
    for value in (3.0, 2.0, 4.0):
        trial = there.ask(distribution)
        trial.report(value, 10)
        there.tell(trial, value)
    there.ask(distribution)
    good = study.journal_of(out).read_bytes()
    description = (out / study.STUDY).read_bytes()

    def check(rng: random.Random) -> None:
        for path in out.iterdir():
            if path.is_file():
                path.unlink()
        changed = mutations.of_json(rng, description) if rng.random() < 0.05 else description
        (out / study.STUDY).write_bytes(changed)
        (out / "optuna.journal").write_bytes(mutations.of_lines(rng, good))
        if study.read_description(out).journal != "optuna.journal":
            return  # which may name any file
        opened = study.open_study(out)
        if opened.study_name:
            trial = opened.ask(distribution)
            opened.tell(trial, 1.0)

    return check


def whole_runs(home: Home) -> Check:
    """A run directory of which a file or two are changed: by run=, lm.report and the doctor."""
    out = home.room("whole") / "run"
    parts = [config.RESOLVED, "tokenizer.json", "summary.json", "data.json", "code.json"]
    parts += [
        "metrics.jsonl",
        "samples.jsonl",
        "result.json",
        "wandb.json",
        ".hydra/overrides.yaml",
    ]
    shutil.copytree(home.run, out)
    inside = checkpoint.folder(out, 2).relative_to(out)
    parts += [str(inside / name) for name in ("state.json", "model.safetensors")]
    good = {name: (out / name).read_bytes() for name in parts}
    manifest = (out / inside / store.MANIFEST).read_bytes()
    nested = plain_yaml(good[config.RESOLVED].decode())

    def mutated(rng: random.Random, name: str) -> bytes:
        if name == config.RESOLVED:
            return mutations.of_yaml(rng, good[name], nested)
        if name.endswith(".yaml"):
            return mutations.of_yaml(rng, good[name], ["model=transformer", "seed=0"])
        if name.endswith(".safetensors"):
            return mutations.of_safetensors(rng, good[name])
        how = mutations.of_lines if name.endswith(".jsonl") else mutations.of_json
        return how(rng, good[name])

    def check(rng: random.Random) -> None:
        for name in rng.sample(parts, rng.choice([1, 2])):
            (out / name).write_bytes(mutated(rng, name))
            if name.startswith(str(inside)):
                (out / inside / store.MANIFEST).unlink(missing_ok=True)
                store.seal(out / inside)
        try:
            runs = records.find([out])
            if runs:
                view = board.view(folding.rank(folding.fold_seeds(runs)), counts=False)
                assert json.dumps(files.finite(view), default=str, allow_nan=False)
            if rng.random() < 0.3:
                doctor.examine(out)
            run = Run.open(str(out))
            model = run.model(rng.choice(["best", "last", 2]))
            with torch.inference_mode():
                assert model(torch.zeros(1, 4, dtype=torch.long)).shape[1] == 4
        finally:
            for name, content in good.items():
                (out / name).write_bytes(content)
            (out / inside / store.MANIFEST).write_bytes(manifest)

    return check


# ----------------------------------------------------------------------------------------- texts


def corpora(home: Home) -> Check:
    """Files of texts, in each format."""
    folder = home.room("corpora")
    rows = [{"text": f"line {i}", "n": i, "a": {"b": "x"}} for i in range(5)]
    lines = b"\n".join(map(mutations.dumped, rows))
    table = b'n,text\n1,one\n2,two words\n3,"a, b"\n'
    seeds = {
        "a.txt": ("the cat sat on the mat. é中\r\n" * 9).encode(),
        "a.md": b"# Title\n\ntext\n",
        "a.jsonl": lines,
        "b.jsonl": b"[" + lines.replace(b"\n", b",") + b"]",
        "a.json": mutations.dumped(rows),
        "b.json": lines,
        "a.csv": table,
        "a.txt.gz": gzip.compress(b"the cat sat on the mat\n" * 9),
        "a.jsonl.gz": gzip.compress(lines),
    }
    with contextlib.suppress(ImportError):
        import pyarrow
        import pyarrow.parquet

        made = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(made, folder / "a.parquet")
        seeds["a.parquet"] = (folder / "a.parquet").read_bytes()
    with contextlib.suppress(ImportError):
        import zstandard

        seeds["a.txt.zst"] = zstandard.compress(b"the cat sat on the mat\n" * 9)
    names = sorted(seeds)

    def mutated(rng: random.Random, name: str) -> bytes:
        if name.endswith(".gz"):
            return mutations.of_gzip(rng, seeds[name])
        if name.endswith(".csv"):
            return mutations.of_csv(rng, seeds[name])
        if name in ("a.jsonl", "b.json"):
            return mutations.of_lines(rng, seeds[name])
        if name.endswith((".json", ".jsonl")):
            return mutations.of_json(rng, seeds[name])
        return mutations.damaged(rng, seeds[name])

    def check(rng: random.Random) -> None:
        name = rng.choice(names)
        (folder / name).write_bytes(mutated(rng, name))
        field = rng.choice(["text", "text", "a.b", "n", "", "x", "a"])
        reader = corpus_formats.Reader(field, rng.choice(["strict", "replace"]))
        corpus_formats.check_size(folder / name)
        for document in reader.documents(folder / name):
            assert isinstance(document, str)
            document.encode()

    return check


# ----------------------------------------------------------------------------------------- words

WORDS = [*mutations.TEXTS[:-9], "10**9", "9" * 400, "[", "{a:1}", "'", '"', "${", "a=b", "a,b", "#"]
WORDS += [
    "range(1,3)",
    "choice(a,b)",
    "glob(*)",
    "interval(0,1)",
    "tag(a,1)",
    "shuffle(1,2)",
    "!!int 3",
]
WORDS += [
    "~",
    "*",
    "&a",
    "[1",
    "[]",
    "{}",
    "1_0",
    "\u0661",
    "0x10",
    "latest",
    "best",
    "\udcff",
    "\u00e9",
]


def value(rng: random.Random) -> str:
    """What stands behind the = of a word, short enough to be repeated in an error thrice."""
    return _value(rng)[:1000]


def _value(rng: random.Random) -> str:
    how = rng.randint(0, 5)
    if how == 0:
        return str(rng.choice([*mutations.INTS, *mutations.FLOATS]))
    if how == 1:
        return mutations.text(rng, rng.choice(WORDS))
    if how == 2:
        return "".join(rng.choices("ab01.,:=[]{}()'\"\\$ \t#*&!?~-+/", k=rng.randint(0, 12)))
    return rng.choice(WORDS)


def words_of_commands(home: Home) -> Check:
    """The words of each command but lm.train, as it reads them before it does anything."""
    verbs = [cls for name, cls in commands.COMMANDS.items() if name != "train"]

    def check(rng: random.Random) -> None:
        cls = rng.choice(verbs)
        keys = [*cls.__dataclass_fields__, *cls.__dataclass_fields__, "x", "", "run.x"]
        given = [f"{rng.choice(keys)}={value(rng)}" for _ in range(rng.randint(0, 3))]
        if rng.random() < 0.2:
            given.append(value(rng))
        paths = "runs" if "runs" in cls.__dataclass_fields__ else ""
        cli.parse(cls, given, paths)

    return check


@functools.cache
def keys_of_settings() -> list[str]:
    keys = []
    for group in config.PARTS:
        for option in config.options(group).values():
            keys += [f"{group}.{name}" for name in option.__dataclass_fields__]
    for group, cls in (("train", config.TrainConfig), ("track", config.TrackConfig)):
        keys += [f"{group}.{name}" for name in cls.__dataclass_fields__]
    return [*keys, "seed", "name", "init_from", *config.PARTS, "train", "track", "experiment"]


def setting(rng: random.Random) -> str:
    """A word of lm.train."""
    if rng.random() < 0.05:
        return value(rng)
    sign = rng.choice(["", "", "", "", "+", "++", "~", "-", "--", "hydra."])
    key = rng.choice(keys_of_settings()) if rng.random() < 0.95 else value(rng)
    of_group = sorted(config.options(key)) if key in config.PARTS else []
    return f"{sign}{key}={rng.choice([value(rng), *of_group])}"


def words_of_training(home: Home) -> Check:
    """The words of lm.train, one by one: what is typed, and what Hydra's grammar makes of it."""

    def check(rng: random.Random) -> None:
        for word in words.as_typed([setting(rng)]):
            words.read(word)
            override = values.parse(word)
            if not override.is_sweep_override():
                override.value()

    return check


def whole_commands(home: Home) -> Check:
    """Several words of lm.train, composed by Hydra and checked."""

    def check(rng: random.Random) -> None:
        with contextlib.suppress(SystemExit):  # argparse, for words such as --x
            compose.compose_run([setting(rng) for _ in range(rng.choice([1, 1, 2, 3]))])

    return check


def tensors(home: Home) -> Check:
    """Files of tensors by themselves: what the header says is there."""
    from lm.system.tensors import load_shapes, load_tensors

    path = home.room("tensors") / "a.safetensors"
    save_file({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}, path)
    good = path.read_bytes()

    def check(rng: random.Random) -> None:
        path.write_bytes(mutations.of_safetensors(rng, good))
        shapes = load_shapes(path)
        loaded = load_tensors(path)
        assert {name: list(t.shape) for name, t in loaded.items()} == shapes
        (n,) = struct.unpack("<Q", path.read_bytes()[:8])
        assert sum(t.nbytes for t in loaded.values()) <= path.stat().st_size - 8 - n

    return check


TARGETS: dict[str, Callable[[Home], Check]] = {
    "tokenizer.json": tokenizer_json,
    "texts": tokenizer_texts,
    "patterns": split_pattern,
    "tiktoken": ranks_of_tiktoken,
    "merges.txt": tokenizer_of_gpt2,
    "hugging-face": folder_of_hugging_face,
    "records": records_of_a_run,
    "curves": curves,
    "settings": settings,
    "checkpoints": checkpoints,
    "tensors": tensors,
    "tokens": tokens,
    "journal": journal,
    "runs": whole_runs,
    "corpora": corpora,
    "command-words": words_of_commands,
    "training-words": words_of_training,
    "whole-commands": whole_commands,
}
logging.getLogger("lm").setLevel(logging.CRITICAL)
