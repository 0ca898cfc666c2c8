"""Each stage is built once, found again, and rebuilt when and only when its inputs change."""

import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess

import filelock
import pytest

from lm import tokenizers
from lm.data import pipeline, token_files
from lm.launch import compose
from lm.system import files, store
from tests.helpers import no_locks


@pytest.fixture
def stages(caplog):
    """stages(cfg): {"corpus": "built", "tokenizer": "reused", ...} of one preparation."""

    def run(cfg):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            pipeline.prepare(cfg)
        rows = [r.message.split() for r in caplog.records if r.name == "lm.data.pipeline"]
        return {row[0]: row[2] for row in rows if row[0] in BUILT}

    return run


BUILT = {"corpus": "built", "tokenizer": "built", "tokens": "built"}
REUSED = dict.fromkeys(BUILT, "reused")


def test_the_second_time_everything_is_reused(cfg, tiny, stages):
    assert stages(cfg(*tiny)) == BUILT
    assert stages(cfg(*tiny)) == REUSED


def test_another_tokenizer_setting_rebuilds_what_follows_it(cfg, tiny, stages):
    words = (*tiny, "tokenizer=bpe", "tokenizer.vocab_size=300")
    stages(cfg(*words))
    assert stages(cfg(*words, "tokenizer.pattern=gpt2")) == {**BUILT, "corpus": "reused"}


def test_one_training_serves_every_smaller_vocabulary(cfg, tiny, stages):
    words = (*tiny, "tokenizer=bpe")
    for i, size in enumerate((300, 310, 512, 257)):
        found = stages(cfg(*words, f"tokenizer.vocab_size={size}"))
        assert found["tokenizer"] == ("reused" if i else "built")
        assert found["tokens"] == "built"
    corpus = pipeline.prepare_corpus(cfg(*words).corpus)
    cached = pipeline.prepare_tokenizer(cfg(*words, "tokenizer.vocab_size=310").tokenizer, corpus)
    alone = tokenizers.train("bpe", pipeline.read(corpus, "train"), vocab_size=310)
    assert cached.fingerprint == alone.fingerprint


def test_another_model_or_seed_rebuilds_nothing(cfg, tiny, stages):
    stages(cfg(*tiny))
    assert stages(cfg(*tiny, "model=gru", "seed=5", "train.steps=3")) == REUSED


def test_one_changed_byte_of_the_text_rebuilds_everything(cfg, tmp_path, stages):
    text = tmp_path / "t.txt"
    text.write_text("abc def " * 200)
    words = ("corpus=files", f"corpus.path={text}", "tokenizer=byte")
    stages(cfg(*words))
    text.write_text("abc deF " * 200)
    assert stages(cfg(*words)) == BUILT


CUT = "of which the last 10% are to validate"


@pytest.mark.parametrize(("n", "says"), [(1, CUT), (5, CUT), (200, "in 200 documents")])
def test_documents_are_told_where_none_was_cut_in_two(n, says, cfg, tmp_path, caplog):
    (tmp_path / "t.jsonl").write_text("".join(f'{{"text": "line {k}"}}\n' for k in range(n)))
    with caplog.at_level(logging.INFO):
        pipeline.prepare_corpus(cfg("corpus=files", f"corpus.path={tmp_path}/t.jsonl").corpus)
    assert caplog.messages[-1].endswith(says)


def test_another_version_of_regex_rebuilds_the_tokenizer(cfg, tiny, stages, monkeypatch):
    words = (*tiny, "tokenizer=bpe", "tokenizer.vocab_size=300")
    stages(cfg(*words))
    monkeypatch.setattr(pipeline.regex, "__version__", "2000.1.1")
    assert stages(cfg(*words))["tokenizer"] == "built"


def rewrite(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | changes))


DAMAGE = {  # of the token files; those with a star are sealed again, as a stranger could
    "a bit": lambda f: (f / "train.bin").write_bytes(b"\xff" + (f / "train.bin").read_bytes()[1:]),
    "cut": lambda f: os.truncate(f / "train.bin", 999),
    "an odd byte*": lambda f: (f / "val.bin").write_bytes((f / "val.bin").read_bytes() + b"x"),
    "an id too large*": lambda f: (f / "val.bin").write_bytes(
        b"\xff\xff" + (f / "val.bin").read_bytes()[2:]
    ),
    "another dtype*": lambda f: rewrite(f / "tokens.json", dtype="uint32"),
    "an unknown dtype*": lambda f: rewrite(f / "tokens.json", dtype="object"),
    "another tokenizer*": lambda f: rewrite(f / "tokens.json", tokenizer="0" * 64),
    "another vocabulary*": lambda f: rewrite(f / "tokens.json", vocab_size=99),
    "a split is missing*": lambda f: rewrite(f / "tokens.json", splits={"val": {}}),
    "no counts*": lambda f: rewrite(f / "tokens.json", splits={"train": {}, "val": {}}),
    "a list*": lambda f: (f / "tokens.json").write_text("[]"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_tokens_are_rebuilt_with_a_warning(kind, cfg, tiny, stages, caplog):
    stages(cfg(*tiny))
    tokens = next(files.cache_dir().glob("tokens-*"))
    good = (tokens / "train.bin").read_bytes(), (tokens / "val.bin").read_bytes()
    DAMAGE[kind](tokens)
    if kind.endswith("*"):
        (tokens / store.MANIFEST).unlink()
        store.seal(tokens)
    assert stages(cfg(*tiny)) == {**REUSED, "tokens": "built"}
    assert "building it again" in caplog.text
    assert good == ((tokens / "train.bin").read_bytes(), (tokens / "val.bin").read_bytes())


@pytest.mark.parametrize(("stage", "file"), [("corpora", "corpus"), ("tokenizers", "tokenizer")])
def test_a_stage_that_is_sealed_but_senseless_is_rebuilt(stage, file, cfg, tiny, stages, caplog):
    stages(cfg(*tiny))
    folder = next(files.cache_dir().glob(f"{stage}-*"))
    (folder / f"{file}.json").write_text('{"format": 1}')
    (folder / store.MANIFEST).unlink()
    store.seal(folder)
    assert stages(cfg(*tiny)) == {**REUSED, file: "built"}
    assert "building it again" in caplog.text


def prepare_at_once(n, cfg, log):
    """Prepare in n processes; each writes the stages that it built into `log`, and its exit code
    is what comes back."""

    def job():
        with open(log, "a") as file:
            handler = logging.StreamHandler(file)
            logging.getLogger().addHandler(handler)
            logging.getLogger("lm.data.pipeline").setLevel(logging.INFO)
            pipeline.prepare(cfg)

    jobs = [multiprocessing.get_context("fork").Process(target=job) for _ in range(n)]
    for process in jobs:
        process.start()
    for process in jobs:
        process.join()
    return [process.exitcode for process in jobs]


def digest():
    """The checksum of every file in the cache but the lock files."""
    found = sorted(p for p in files.cache_dir().rglob("*") if p.is_file() and p.suffix != ".lock")
    return {str(p.relative_to(files.cache_dir())): files.sha256(p) for p in found}


@pytest.mark.parametrize("locks", [True, False])
def test_eight_jobs_on_an_empty_cache_build_what_one_builds(
    cfg, tiny, tmp_path, locks, monkeypatch, caplog
):
    made = cfg(*tiny, "tokenizer=bpe", "tokenizer.vocab_size=300")
    pipeline.prepare(made)
    alone = digest()
    shutil.rmtree(files.cache_dir())
    if not locks:
        monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    assert prepare_at_once(8, made, tmp_path / "log") == [0] * 8
    assert digest() == alone
    built = (tmp_path / "log").read_text().count("built in")
    assert built == 3 if locks else 3 <= built <= 24


@pytest.mark.parametrize("locks", [True, False])
def test_jobs_that_find_every_stage_damaged_build_it_again(cfg, tiny, tmp_path, locks, monkeypatch):
    made = cfg(*tiny)
    pipeline.prepare(made)
    before = digest()
    for path in files.cache_dir().glob("*/t*.*"):
        os.truncate(path, 9)
    if not locks:
        monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    assert prepare_at_once(4, made, tmp_path / "log") == [0] * 4
    assert digest() == before
    built = (tmp_path / "log").read_text().count("built in")
    assert built == 3 if locks else 3 <= built <= 12


def test_make_tells_the_size_of_the_cache_and_empties_it_of_what_is_ours(
    cfg, tiny, tmp_path, monkeypatch
):
    """Of LM_CACHE_DIR="my data" it deleted `my`, and of a folder of the user's all `downloads`."""
    (tmp_path / "my").mkdir()
    monkeypatch.setenv("LM_CACHE_DIR", str(tmp_path / "my data"))
    pipeline.prepare(cfg(*tiny))
    ours = ["floors-", "overlap-", "wandb-", "shards-", ".tokens-"]
    theirs = ["wandb", "tokens-mine", "downloads/mine.txt", "compiled/mine.txt"]
    for name in (*(f"{kind}{'0a' * 8}" for kind in ours), *theirs, "downloads/names.txt"):
        (files.cache_dir() / name).mkdir(parents=True, exist_ok=True)
    (files.cache_dir() / "downloads/names.txt").rmdir()
    (files.cache_dir() / "downloads/names.txt").touch()
    makefile = compose.folder("conf").parent / "Makefile"

    def make(target):
        # Not as a part of the make that runs the tests: it would tell which directory it enters.
        env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
        words = ["make", "-f", makefile, target]
        done = subprocess.run(words, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = {line.split("\t")[1].split("-")[0] for line in make("cache").splitlines()}
    assert {"corpora", "tokenizers", "tokens", "total"} <= listed
    make("clean-cache")
    left = {str(path.relative_to(files.cache_dir())) for path in files.cache_dir().glob("**/*")}
    assert left == {*theirs, "downloads", "compiled"}
    assert (tmp_path / "my").is_dir()
    (files.cache_dir() / "compiled/CACHEDIR.TAG").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LM_CACHE_DIR", "~/my data")
    make("clean-cache")
    assert not (tmp_path / "my data/compiled").exists()
    monkeypatch.setenv("LM_CACHE_DIR", "nowhere")
    make("clean-cache")


def test_a_job_killed_while_it_builds_costs_the_others_nothing(cfg, tiny, tmp_path, monkeypatch):
    made, pack, first = cfg(*tiny), token_files.pack, tmp_path / "first"

    def dies_once(*arguments):
        counts = pack(*arguments)
        with contextlib.suppress(FileExistsError):
            first.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return counts

    monkeypatch.setattr(token_files, "pack", dies_once)
    assert sorted(prepare_at_once(4, made, tmp_path / "log")) == [-signal.SIGKILL, 0, 0, 0]
    assert (tmp_path / "log").read_text().count("built in") == 3
    assert not list(files.cache_dir().glob(".*.tmp"))
    before = digest()
    shutil.rmtree(files.cache_dir())
    pipeline.prepare(made)
    assert digest() == before


def test_the_cache_is_the_owners_alone(cfg, tiny):
    pipeline.prepare(cfg(*tiny))
    assert files.cache_dir().stat().st_mode & 0o777 == 0o700


def test_char_knows_the_letters_of_both_splits(cfg, tmp_path):
    text = tmp_path / "t.txt"
    text.write_text("abc" * 100 + "xyz" * 10)  # x, y and z stand in the validation part alone
    words = ("corpus=files", f"corpus.path={text}", "tokenizer=char")
    prepared = pipeline.prepare(cfg(*words))
    assert prepared.tokenizer.vocab_size == 6 + 1
    assert prepared.tokenizer.decode(prepared.val.tolist()) == ("abc" * 100 + "xyz" * 10)[297:]


def test_the_record_says_what_the_run_was_trained_on(cfg, tiny, toy_text):
    prepared = pipeline.prepare(cfg(*tiny))
    splits = prepared.tokens.splits
    assert splits.train.n_bytes + splits.val.n_bytes == toy_text.stat().st_size
    assert len(prepared.train) == splits.train.n_tokens
    assert prepared.tokens.tokenizer == prepared.tokenizer.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text"),
        (b"a", "has 1 characters, too few"),
        (b"abc \xff def", "position 4|byte 4"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_by_name(cfg, tmp_path, content, message):
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        pipeline.prepare(cfg("corpus=files", f"corpus.path={tmp_path}/t.txt", "tokenizer=byte"))
    assert not list(files.cache_dir().glob("tokens-*"))
