"""Tokenizers by hand: train one, encode and decode with it, look at it, compare several.

python -m lm.tokenizer train path=book.txt vocab_size=2048 out=book.json
python -m lm.tokenizer show tokenizer=book.json text="Where do tokens end?"
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("tokenizer")

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from lm import config, tokenizers
from lm.launch import cli
from lm.settings.commands import (
    CompareTokenizers,
    DecodeIds,
    EncodeText,
    ShowTokens,
    TrainTokenizer,
)
from lm.system import files, streams
from lm.system.console import Console
from lm.system.errors import ConfigError, no_code_for
from lm.system.text import printable
from lm.tokenizers import Tokenizer, formats
from lm.tokenizers.text import encode_utf8

BLOCK_LEN = 1 << 16  # characters read at a time
NEVER_SHOWN = 40  # of the tokens that never occur
COLOURS = ("black on bright_cyan", "black on bright_yellow", "black on bright_green")

log = logging.getLogger(__name__)


def train(cfg: TrainTokenizer) -> None:
    """Train a tokenizer and write its file, which replaces no file that is not a tokenizer."""
    is_file = cfg.out != "-"
    if is_file:
        streams.check_output(cfg.out)
    if is_file and Path(cfg.out).is_file():
        try:
            tokenizers.load(cfg.out)
        except (ValueError, OSError):
            raise ConfigError(
                f"out={cfg.out} is there, and is no tokenizer of lm: choose another out="
            ) from None
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        counting = bar.add_task("reading", total=None)
        merging = bar.add_task("merging", total=None, visible=cfg.name == "bpe")

        def documents() -> Iterator[str]:
            for document in read_documents(cfg.path):
                yield document
                bar.advance(counting, len(document))
            if not bar.tasks[counting].completed:
                raise ValueError(f"path={cfg.path} holds no text to train on: give some")

        def progress(done: int, total: int) -> None:
            bar.update(merging, completed=done, total=total)

        if cfg.name == "bpe":
            tokenizer = tokenizers.train(
                "bpe",
                documents(),
                progress=progress,
                vocab_size=cfg.vocab_size,
                pattern=cfg.pattern,
                tie_break=cfg.tie_break,
            )
        else:
            tokenizer = tokenizers.train(cfg.name, documents())
    if is_file:
        tokenizer.save(cfg.out)
    else:
        with streams.open_output(cfg.out) as sink:
            sink.write(tokenizer.to_json().encode())
    log.info(f"{cfg.out if is_file else 'standard output'}: {tokenizer}")
    if cfg.name == "bpe" and tokenizer.vocab_size % 64:
        log.info(f"{tokenizer.vocab_size} is no multiple of 64, which matrix units like best")


def encode(cfg: EncodeText) -> None:
    """Write the ids of a text; a file that is there is replaced only with `overwrite`."""
    streams.check_output(cfg.out, cfg.path, cfg.tokenizer, as_stream=True)
    streams.check_new(cfg.out, cfg.overwrite)
    tokenizer = open_tokenizer(cfg.tokenizer)
    allowed = tuple(tokenizer.specials) if cfg.allow_special else ()
    with streams.open_text(cfg.path) as source, streams.open_output(cfg.out) as sink:
        blocks = iter(lambda: source.read(BLOCK_LEN), "")
        ids_of_text = tokenizer.encode_iterable(blocks, allowed, disallowed_special=())
        for ids in _groups(ids_of_text):
            if cfg.format == "raw":
                sink.write(np.array(ids, tokenizer.dtype).tobytes())
            elif cfg.format == "text":
                sink.write((" ".join(map(str, ids)) + "\n").encode())
            else:
                raise no_code_for("format", cfg.format)


def decode(cfg: DecodeIds) -> None:
    """Write the text of ids; on a terminal without control characters.

    A file that is there is replaced only with `overwrite`.
    """
    streams.check_output(cfg.out, cfg.path, cfg.tokenizer, as_stream=True)
    streams.check_new(cfg.out, cfg.overwrite)
    tokenizer = open_tokenizer(cfg.tokenizer)
    with streams.open_bytes(cfg.path) as source, streams.open_output(cfg.out) as sink:
        if cfg.format == "raw":
            ids = _raw_ids(source, tokenizer)
        elif cfg.format == "text":
            ids = _text_ids(source)
        else:
            raise no_code_for("format", cfg.format)
        to_terminal = cfg.out == "-" and sys.stdout.isatty()
        for text in tokenizer.decode_stream(ids, cfg.errors):
            if to_terminal:
                text = printable(text)
            sink.write(text.encode())


def show(cfg: ShowTokens) -> None:
    """Print a text in coloured tokens, and how it uses the vocabulary."""
    tokenizer = open_tokenizer(cfg.tokenizer)
    text = read_text(cfg)
    ids = tokenizer.encode_to_numpy(text)
    console = Console(highlight=False)
    console.print(_coloured(tokenizer, ids, cfg.max_tokens))
    used = np.bincount(ids, minlength=tokenizer.vocab_size) > 0  # (vocab_size,)
    n_byte = len(text.encode())
    per_token = n_byte / max(1, len(ids))
    console.print(
        f"{n_byte:,} bytes, {len(ids):,} tokens: {per_token:.2f} bytes per token; "
        f"{used.sum():,} of {tokenizer.vocab_size:,} ids occur ({used.mean():.0%})",
        markup=False,
    )
    # Specials have no bytes, and single bytes are there whether a text needs them or not.
    never = np.flatnonzero(~used & (tokenizer.token_lengths() > 1)).tolist()
    if never:
        names = " ".join(f"[{tokenizer.show(i)}]" for i in never[:NEVER_SHOWN])
        if len(never) > NEVER_SHOWN:
            names += f" and {len(never) - NEVER_SHOWN:,} more"
        console.print(f"never: {len(never):,} of more than a byte: {names}", markup=False)


def _coloured(tokenizer: Tokenizer, ids: np.ndarray, max_tokens: int) -> Text:
    """The first tokens in alternating colours, and how many more there are."""
    line = Text()
    for k, i in enumerate(ids[:max_tokens].tolist()):
        token = tokenizer.show(i).replace("\\n", "\u21b5")
        line.append(token, COLOURS[k % len(COLOURS)])
        if tokenizer.token_bytes(i).endswith(b"\n"):
            line.append("\n")
    if len(ids) > max_tokens:
        line.append(f" ... {len(ids) - max_tokens:,} more")
    return line


def compare(cfg: CompareTokenizers) -> None:
    """Print a table of several tokenizers on one text; one that cannot read it has a row, too."""
    text = read_text(cfg)
    n_byte = len(encode_utf8(text))
    table = Table("tokenizer", "ids", "tokens", "bytes per token", "ids used", "MB/s")
    names = cli.names(cfg.tokenizers, _is_tokenizer)
    problems = []
    for name in names:
        tokenizer = open_tokenizer(name)
        try:
            ids = tokenizer.encode_to_numpy(text)  # once before the clock: the memory is warm
        except ValueError as error:
            table.add_row(Text(name), f"{tokenizer.vocab_size:,}", "cannot read it")
            problems.append(f"{name}: {error}")
            continue
        start = time.perf_counter()
        tokenizer.encode_to_numpy(text)
        seconds = max(time.perf_counter() - start, 1e-9)
        per_token = n_byte / max(1, len(ids))
        used = len(np.unique(ids)) / tokenizer.vocab_size
        table.add_row(
            Text(name),
            f"{tokenizer.vocab_size:,}",
            f"{len(ids):,}",
            f"{per_token:.3f}",
            f"{used:.0%}",
            f"{n_byte / seconds / 1e6:.1f}",
        )
    if len(problems) == len(names):
        raise ValueError("; ".join(problems))
    Console().print(table)
    for problem in problems:
        streams.print_line(problem)


# ------------------------------------------------------------------------- in and out


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of one of our files or of a Hugging Face tokenizer.json; `byte` needs no file.

    Raises FileNotFoundError, or TokenizerFormatError if the file is neither.
    """
    if name == "byte":
        return tokenizers.ByteTokenizer()
    try:
        return tokenizers.load(files.expanded(name))
    except tokenizers.TokenizerFormatError as error:
        if "no tokenizer file" not in str(error):
            raise
        try:
            return formats.from_hf(files.expanded(name))
        except tokenizers.TokenizerFormatError as other:
            raise tokenizers.TokenizerFormatError(f"{error}; nor Hugging Face's: {other}") from None


def _is_tokenizer(name: str) -> bool:
    return name == "byte" or Path(files.expanded(name)).exists()


def read_documents(path: str) -> Iterator[str]:
    """The documents of the files of `path`; standard input, "-", is one document."""
    if path == "-":
        with streams.open_text(path) as source:
            yield source.read()
    else:
        corpus = config.FilesConfig(path=path).build()
        corpus.paths(aloud=True)
        yield from corpus.documents()


def read_text(cfg: ShowTokens | CompareTokenizers) -> str:
    """The text that was given, or else what `path` holds. Raises ValueError if that is nothing."""
    if cfg.text:
        return cfg.text
    with streams.open_text(cfg.path) as source:
        text = source.read()
    if not text:
        raise ValueError(f"path={cfg.path} is empty: give text=... or a file with text")
    return text


def _groups(ids: Iterator[int], size: int = 4096) -> Iterator[list[int]]:
    """The ids in lists of `size`; the last may be shorter."""
    group: list[int] = []
    for i in ids:
        group.append(i)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _text_ids(source: IO[bytes]) -> Iterator[int]:
    """The ids of a file that holds decimal numbers."""
    for line in source:
        for word in line.split():
            try:
                yield int(word)
            except ValueError:
                raise ValueError(
                    f"{word[:40]!r} is not an id: give numbers, or format=raw"
                ) from None


def _raw_ids(source: IO[bytes], tokenizer: Tokenizer) -> Iterator[int]:
    """The ids of a file that holds numbers of the tokenizer's dtype."""
    size = np.dtype(tokenizer.dtype).itemsize
    for block in iter(lambda: source.read(1 << 16), b""):
        if len(block) % size:
            raise ValueError(f"format=raw: the ids of this tokenizer take {size} bytes each")
        yield from np.frombuffer(block, tokenizer.dtype).tolist()


ACTIONS = {
    "train": (TrainTokenizer, train),
    "encode": (EncodeText, encode),
    "decode": (DecodeIds, decode),
    "show": (ShowTokens, show),
    "compare": (CompareTokenizers, compare),
}


def main() -> None:
    """Run the action that the command line names."""
    action = sys.argv[1] if len(sys.argv) > 1 else ""
    if action in ACTIONS:
        settings, command = ACTIONS[action]
        del sys.argv[1]  # cli.main reads the action's settings from the rest
        cli.main(settings, command)
        return
    with cli.errors_in_one_line():
        given = f"{action} is not one of" if action else "give"
        raise ConfigError(f"{given} {', '.join(ACTIONS)}; lm.tokenizer --help tells what they do")


if __name__ == "__main__":
    main()
