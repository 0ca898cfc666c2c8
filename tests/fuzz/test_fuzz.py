"""Files and words that nobody would write, made at random: only a ValueError or OSError of one
line may come out, in bounded time.

    LM_FUZZ_SECONDS=600 python -m pytest -m faults tests/fuzz      # ten minutes for each target

What was found stands as a test of its own beside those of the part that was at fault.
"""

import contextlib
import copy
import json
import os
import shutil
import signal
import struct
import time
import warnings

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from lm import config, tokenizers, train
from lm.data import pipeline
from lm.huggingface import config_json, weights
from lm.launch import compose
from lm.record import checkpoint
from lm.record.run import Run
from lm.report import board, folding, records
from lm.settings.yaml_files import read_yaml
from lm.system import store
from lm.tokenizers import formats
from tests.helpers import TINY

pytestmark = pytest.mark.faults
SECONDS = float(os.environ.get("LM_FUZZ_SECONDS", 20))  # for each target
LIMIT = 20  # seconds for one input
FIRST = int(os.environ.get("LM_FUZZ_SEED", 0))  # another one tries other inputs
QUIET = settings(max_examples=100, deadline=None, database=None, phases=[Phase.generate])
QUIET = settings(QUIET, suppress_health_check=list(HealthCheck))


def fuzz(record_property, check, *strategies):
    """Run `check` on drawn values until the time is up; the number of rounds is the seed."""
    until, n = time.monotonic() + SECONDS, FIRST
    while time.monotonic() < until:
        n += 1
        seed(n)(QUIET(given(*strategies)(check)))()
    record_property("inputs tried at random", (n - FIRST) * QUIET.max_examples)


def one_line(action):
    """Call it; True if it worked, False if it was refused as it should be. Fails if it hangs."""

    def late(*_):
        raise AssertionError(f"no answer in {LIMIT} s of computing")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            action()
        return True
    except (ValueError, OSError) as error:
        text = str(error)
        assert text and len(text) < 5000, text[:200]
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


# ------------------------------------------------------------------------------ what is drawn

ODD = [None, True, False, 0, -1, 1, 255, 256, 1 << 31, 1 << 63, 1 << 70, 10**400, -(10**30), 0.5]
ODD += [float("nan"), float("inf"), -0.0, 1e308, "", "x", "nan", "../../x", "${oc.env:HOME}", "\0"]
ODD += ["\ud800", "a" * 5000, "<|endoftext|>", "/etc/passwd", "_target_", "\u00e9\n", [], {}, [[]]]
ODD += [{"": None}, ["x"], [1], {"_target_": "os.system"}, [None] * 50]
NASTY = st.sampled_from(ODD)
VALUES = NASTY | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
VALUES = VALUES.map(copy.deepcopy)  # they are changed further


def places(value, at=()):
    """The path of every value inside a JSON value."""
    yield at
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


def changed(draw, value):
    """The JSON value with a few parts replaced, taken out or doubled."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        every = list(places(value))
        at = every[draw(st.integers(0, len(every) - 1))]
        if not at:
            if draw(st.integers(0, 9)) == 0:
                return draw(VALUES)
            continue
        parent = value
        for key in at[:-1]:
            parent = parent[key]
        how = draw(st.integers(0, 5))
        if how == 0:
            del parent[at[-1]]
        elif how == 1 and isinstance(parent, dict):
            parent[draw(st.text(max_size=8) | st.sampled_from(["_target_", "x", "name"]))] = draw(
                VALUES
            )
        elif how == 2 and len(every) > 2:
            other = value
            for key in every[draw(st.integers(0, len(every) - 1))]:
                other = other[key]
            parent[at[-1]] = copy.deepcopy(other)
        else:
            parent[at[-1]] = draw(VALUES)
    return value


def damaged(draw, data):
    """The bytes with a few stretches replaced, taken out, doubled or cut."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        n = draw(st.integers(0, 40))
        how = draw(st.integers(0, 4))
        if how == 0:
            data[at : at + n] = draw(st.binary(max_size=20))
        elif how == 1:
            data[at:at] = data[at : at + n] * draw(st.integers(1, 50))
        elif how == 2:
            del data[at:]
        elif how == 3 and data:
            data[at % len(data)] ^= 1 << draw(st.integers(0, 7))
        else:
            words = [b"*a", b"&a ", b"!!python/object:x ", b"- ", b"[", b"{", b"NaN", b"\\ud800"]
            data[at : at + n] = draw(st.sampled_from(words)) * draw(st.integers(1, 3))
    return bytes(data)


def dumped(value):
    return json.dumps(value).encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------------------------- tokenizers

SMALL = tokenizers.BPETokenizer.of_merges([(104, 105, 256), (256, 33, 257)], pattern="gpt2")
FILES = [
    SMALL.to_json(),
    tokenizers.BPETokenizer.of_merges([(97, 98, 256)], pattern=r"\w+|\s+|[^\w\s]+").to_json(),
    tokenizers.ByteTokenizer(("<|endoftext|>", "<s>")).to_json(),
    tokenizers.CharTokenizer("abc é中").to_json(),
]


def test_tokenizer_files(record_property):
    def check(data):
        text = data.draw(st.sampled_from(FILES))
        if data.draw(st.booleans()):
            raw = dumped(changed(data.draw, json.loads(text)))
        else:
            raw = damaged(data.draw, text.encode())

        def load():
            made = tokenizers.from_json(raw.decode("utf-8", "replace"))
            again = tokenizers.from_json(made.to_json())
            assert again.fingerprint == made.fingerprint
            ids = made.encode_ordinary("abc ab hi! é\n")
            assert made.decode(ids) == "abc ab hi! é\n"

        one_line(load)

    fuzz(record_property, check, st.data())


PEERS = [
    tokenizers.train("bpe", ["the cat sat on the mat " * 9, "a b  c\n\nd" * 9], vocab_size=272),
    tokenizers.train("bpe", ["aaaa bbbb 1234 'll 've" * 9], vocab_size=270, pattern="gpt2"),
    tokenizers.from_json(FILES[1]),
    tokenizers.ByteTokenizer(("<|endoftext|>", "<|a|>", "<|a|><|b|>")),
]
MARKS = ["<|endoftext|>", "<|a|>", "<|a|><|b|>", "<|endoft", "'\u017f", "\r\n \n", " " * 99]
LETTERS = "ab \n\t'sSlL1\u00b2\u0663e\u0301\u200d\U0001f468\ufeff\0\r"
TEXT = st.lists(
    st.text(max_size=30)
    | st.text(LETTERS, max_size=30)
    | st.sampled_from(MARKS)
    | st.builds(str.__mul__, st.text(min_size=1, max_size=2), st.integers(1, 400)),
    max_size=6,
).map("".join)


def test_encode_and_decode(record_property):
    def check(data):
        tokenizer = data.draw(st.sampled_from(PEERS))
        text = data.draw(TEXT | st.text(st.characters(), max_size=20))

        def encode():
            ids = tokenizer.encode_ordinary(text)
            assert tokenizer.decode(ids, errors="strict") == text
            assert tokenizer.encode_to_numpy(text).tolist() == ids
            (pieces,) = tokenizer.encode_documents([text])
            assert pieces.tolist() == ids
            allowed = data.draw(st.sampled_from(["all", frozenset()]))
            cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
            parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            whole = tokenizer.encode(text, allowed, ())
            assert list(tokenizer.encode_iterable(parts, allowed, ())) == whole
            assert tokenizer.decode(whole) == text

        one_line(encode)
        raw = data.draw(st.binary(max_size=60))
        assert tokenizer.decode_bytes(tokenizer.encode_bytes(raw)) == raw or isinstance(
            tokenizer, tokenizers.CharTokenizer
        )
        ids = data.draw(st.lists(st.integers(-2, 1 << 33) | NASTY, max_size=50))
        one_line(lambda: tokenizer.decode(ids))

    fuzz(record_property, check, st.data())


# ------------------------------------------------------------------------ Hugging Face's folders


def test_folders_of_hugging_face(tmp_path, record_property):
    """A model, its tokenizer and its weights, of which one file or two are changed."""
    cfg = config.TransformerConfig(
        n_layer=1, n_head=2, n_embd=8, context_len=6, activation="swiglu", qk_norm=False
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    formats.to_hf(PEERS[1], folder / "tokenizer.json")
    V = PEERS[1].vocab_size
    (folder / "config.json").write_text(json.dumps(config_json.to_hf(cfg, V, V - 1)))
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    made = {name: t.contiguous().clone() for name, t in weights.to_hf(cfg.build(V)).items()}
    save_file(made, folder / "model.safetensors")
    good = {path.name: path.read_bytes() for path in folder.iterdir()}

    def check(data):
        for name, content in good.items():
            (folder / name).write_bytes(content)
        for name in data.draw(
            st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=2, unique=True)
        ):
            (folder / name).write_bytes(mutated(data.draw, folder / name))

        def read():
            settings = config.TransformerConfig(**config_json.settings_of(folder))
            tokenizer = formats.from_hf_folder(folder)
            weights.check_fits(folder, settings)
            model = settings.build(tokenizer.vocab_size)
            weights.load(folder, model)
            ids = torch.tensor([tokenizer.encode_ordinary("ab")[:1]])
            assert model(ids).isfinite().all()

        one_line(read)

    fuzz(record_property, check, st.data())


# ------------------------------------------------------------------------------- command lines

KEYS = [f"{g}.{f}" for g, c in config.PARTS.items() for o in config.options(g).values()
        for f in o.__dataclass_fields__]  # fmt: skip
KEYS += [f"train.{f}" for f in config.TrainConfig.__dataclass_fields__]
KEYS += [f"track.{f}" for f in config.TrackConfig.__dataclass_fields__]
KEYS += ["seed", "name", "init_from", *config.PARTS, "train", "track", "experiment"]
WORDS = ["nan", "inf", "-1", "0", "1e400", "10**9", "9" * 400, "true", "null", "[", "{a:1}"]
WORDS += ["'", '"', "${oc.env:HOME}", "${x}", "${", "???", "_target_", "os.system", "../x", "a=b"]
WORDS += ["a,b", "range(1,3)", "choice(a,b)", "glob(*)", "\\", "\u00e9", "\t", " ", "#", "!!int 3"]


def test_configuration_words(tmp_path, monkeypatch, record_property):
    monkeypatch.chdir(tmp_path)
    value = st.sampled_from(WORDS) | st.text(max_size=12) | st.integers().map(str)
    value |= st.floats().map(str) | st.sampled_from(sorted(config.options("model")))
    key = st.sampled_from(KEYS) | st.text(max_size=10)
    sign = st.sampled_from(["", "+", "++", "~", "-", "--", "hydra."])
    word = st.builds(lambda s, k, v: f"{s}{k}={v}", sign, key, value) | st.text(max_size=20)

    def check(words):
        def compose_words():
            with contextlib.suppress(SystemExit):  # argparse, for words such as --x
                compose.compose_run(words)

        one_line(compose_words)

    fuzz(record_property, check, st.lists(word, min_size=1, max_size=3))


# ------------------------------------------------------------------------------ run directories

PARTS = [config.RESOLVED, "tokenizer.json", "summary.json", "data.json", "code.json"]
PARTS += ["metrics.jsonl", "samples.jsonl", "result.json", "wandb.json", ".hydra/overrides.yaml"]
INSIDE = ["state.json", "manifest.json", "model.safetensors", "optimizer.safetensors"]
RUN = (*TINY, "model.n_layer=1", "model.n_head=2", "model.n_embd=8", "model.context_len=8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, toy_text):
    home = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LM_CACHE_DIR", str(home / "cache"))
        made = compose.compose_run(
            ["corpus=files", f"corpus.path={toy_text}", *RUN, "train.steps=2", "track=off"]
        )
        run = home / "run"
        (run / ".hydra").mkdir(parents=True)
        (run / ".hydra" / "overrides.yaml").write_text("- model=transformer\n- seed=0\n")
        result = '{"overrides": ["seed=0"], "status": "ok", "value": 5.0, "error": null}'
        (run / "result.json").write_text(result)
        (run / "wandb.json").write_text('{"id": "abc", "first": 3}')
        config.save(made, run / config.RESOLVED)
        train.train(made, run)
    return home


INDEX = st.integers(0, 99)


def mutated(draw, path):
    raw = path.read_bytes()
    if path.suffix == ".safetensors" and draw(st.booleans()):
        (n,) = struct.unpack("<Q", raw[:8])
        text = dumped(changed(draw, json.loads(raw[8 : 8 + n])))
        return struct.pack("<Q", len(text)) + text + raw[8 + n :]
    if path.suffix == ".json" and draw(st.booleans()):
        return dumped(changed(draw, json.loads(raw)))
    if path.suffix == ".jsonl" and draw(st.booleans()):
        rows = [json.loads(line) for line in raw.splitlines()]
        return b"\n".join(
            dumped(row) for row in [*rows, changed(draw, rows[draw(INDEX) % len(rows)])]
        )
    if path.name == config.RESOLVED and draw(st.booleans()):
        values = changed(draw, read_yaml(path))
        return dumped(values)  # JSON is YAML
    return damaged(draw, raw)


def test_run_directories(whole, tmp_path, monkeypatch, record_property):
    monkeypatch.setenv("LM_CACHE_DIR", str(whole / "cache"))
    folder = checkpoint.folder(whole / "run", 2).relative_to(whole / "run")
    out = tmp_path / "run"

    def check(data):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole / "run", out)
        for _ in range(data.draw(st.integers(1, 2))):
            inside = data.draw(st.booleans())
            name = data.draw(st.sampled_from(INSIDE if inside else PARTS))
            path = folder / name if inside else name
            (out / path).write_bytes(mutated(data.draw, whole / "run" / path))
            if inside and name != "manifest.json":
                (out / folder / store.MANIFEST).unlink()
                store.seal(out / folder)

        def read():
            run = Run.open(str(out))
            model = run.model("last")
            with torch.inference_mode():
                assert model(torch.zeros(1, 4, dtype=torch.long)).shape[1] == 4

        def report():
            runs = records.find([out, whole])
            assert runs
            text = json.dumps(board.view(folding.rank(folding.fold_seeds(runs))), default=str)
            assert text

        def resume():
            cfg = config.load(whole / "run" / config.RESOLVED)
            model = cfg.model.build(257)
            optimizers = cfg.optimizer.build(model)
            checkpoint.resume(out, model, optimizers)
            model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
            for optimizer in optimizers:
                optimizer.step()

        for action in (read, report, resume):
            one_line(action)

    fuzz(record_property, check, st.data())


def test_token_files(whole, tmp_path, monkeypatch, record_property):
    tokenizer = tokenizers.ByteTokenizer()
    (source,) = (whole / "cache").glob("tokens-*")
    (corpus,) = (whole / "cache").glob("corpora-*")
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "cache"))
    out = tmp_path / "cache" / source.name

    def check(data):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        shutil.copytree(source, out)
        name = data.draw(st.sampled_from(["tokens.json", "train.bin", "val.bin", store.MANIFEST]))
        (out / name).write_bytes(mutated(data.draw, source / name))
        if name != store.MANIFEST:
            (out / store.MANIFEST).unlink()
            store.seal(out)
        prepared = pipeline.pack(corpus, tokenizer)  # as it was, or built again
        assert int(prepared.train.max()) < 257 and int(prepared.val.max()) < 257
        assert len(prepared.val) > 1

    fuzz(record_property, check, st.data())
