"""lm-tokenizer: train a tokenizer, and encode and decode with it, where nothing else of lm is.

lm-tokenizer train path=book.txt vocab_size=2048 out=book.json
lm-tokenizer encode tokenizer=book.json path=book.txt out=book.ids
lm-tokenizer decode tokenizer=book.json path=book.ids
lm-tokenizer show tokenizer=book.json text="Where do tokens end?"

`-` as a path stands for standard input or output. `python -m lm.tokenizer`, which comes with the
rest of lm, takes the same words and does more: folders, progress, colours, comparisons.
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from lm import tokenizers
from lm.system import paths, streams

BLOCK_LEN = 1 << 16  # characters read at a time
IDS_IN_LINE = 4096
PATHS = {"path", "out", "tokenizer"}

Words = dict[str, str]


def train(words: Words) -> None:
    """Learn from a text, and write the file of the tokenizer."""
    _refuse_file_that_is_none(words["out"])
    with streams.open_text(words["path"]) as source:
        text = source.read()
    if not text:
        raise ValueError(f"path={words['path']} is empty: give a text to learn from")
    if words["name"] == "bpe":
        size = _number(words, "vocab_size")
        tokenizer = tokenizers.train("bpe", [text], vocab_size=size, pattern=words["pattern"])
    else:
        tokenizer = tokenizers.train(words["name"], [text])
    tokenizer.save(words["out"])
    streams.print_line(f"{words['out']}: {tokenizer}", to_stderr=True)


def encode(words: Words) -> None:
    """Write the ids of a text, in decimal."""
    _check_stream(words)
    tokenizer = tokenizers.load(words["tokenizer"])
    with streams.open_text(words["path"]) as source, streams.open_output(words["out"]) as sink:
        blocks = iter(lambda: source.read(BLOCK_LEN), "")
        for line in _lines(tokenizer.encode_iterable(blocks, disallowed_special=())):
            sink.write(line.encode())


def decode(words: Words) -> None:
    """Write the text of ids."""
    _check_stream(words)
    tokenizer = tokenizers.load(words["tokenizer"])
    with streams.open_bytes(words["path"]) as source, streams.open_output(words["out"]) as sink:
        for text in tokenizer.decode_stream(_ids(source)):
            sink.write(text.encode())


def show(words: Words) -> None:
    """Print a text with a bar between its tokens."""
    tokenizer = tokenizers.load(words["tokenizer"])
    ids = tokenizer.encode(words["text"], disallowed_special=())
    streams.print_line("|".join(tokenizer.show(i) for i in ids))
    n_bytes = len(words["text"].encode())
    streams.print_line(f"{n_bytes:,} bytes, {len(ids):,} tokens")


def _check_stream(words: Words) -> None:
    """ConfigError for an `out` that cannot be written to, or may be somebody's own file."""
    if words["overwrite"] not in ("true", "false"):
        raise ValueError(f"overwrite={words['overwrite']}: give true or false")
    streams.check_output(words["out"], words["path"], words["tokenizer"], as_stream=True)
    streams.check_new(words["out"], words["overwrite"] == "true")


def _refuse_file_that_is_none(path: str) -> None:
    """ValueError if there is a file that is no tokenizer, which is not ours to replace."""
    streams.check_output(path)
    if Path(path).exists():
        try:
            tokenizers.load(path)
        except ValueError:
            raise ValueError(f"out={path} is there, and is no tokenizer: choose another") from None


def _number(words: Words, key: str) -> int:
    if not words[key].isdecimal():
        raise ValueError(f"{key}={words[key]} is not a whole number")
    return int(words[key])


def _lines(ids: Iterable[int]) -> Iterator[str]:
    line: list[str] = []
    for i in ids:
        line.append(str(i))
        if len(line) == IDS_IN_LINE:
            yield " ".join(line) + "\n"
            line = []
    if line:
        yield " ".join(line) + "\n"


def _ids(source: IO[bytes]) -> Iterator[int]:
    for line in source:
        for word in line.split():
            if not word.isdigit():
                raise ValueError(f"{word[:40]!r} is not an id: give numbers in decimal")
            yield int(word)


_FILE = {"tokenizer": "tokenizer.json"}
ACTIONS: dict[str, tuple[Callable[[Words], None], Words]] = {  # with the words and their defaults
    "train": (
        train,
        {
            "path": "-",
            "out": "tokenizer.json",
            "name": "bpe",
            "vocab_size": "1024",
            "pattern": "gpt4",
        },
    ),
    "encode": (encode, {**_FILE, "path": "-", "out": "-", "overwrite": "false"}),
    "decode": (decode, {**_FILE, "path": "-", "out": "-", "overwrite": "false"}),
    "show": (show, {**_FILE, "text": "Where do tokens end?"}),
}


def usage() -> str:
    """What `--help` prints: each action with its words and their defaults."""
    lines = ["lm-tokenizer ACTION key=value ...", ""]
    for name, (action, words) in ACTIONS.items():
        lines.append(f"{name}: {action.__doc__}")
        lines.append("    " + " ".join(f"{key}={value}" for key, value in words.items()))
    return "\n".join(lines)


def run(arguments: list[str]) -> None:
    """Do what the arguments say; raises ValueError or OSError with one line for the user."""
    name, *given = arguments or [""]
    if name not in ACTIONS:
        wrong = f"{name} is not one of" if name else "give one of"
        raise ValueError(f"{wrong} {', '.join(ACTIONS)}; lm-tokenizer --help shows their words")
    action, words = ACTIONS[name]
    for word in given:
        key, equals, _ = word.partition("=")
        if not equals or key not in words:
            raise ValueError(f"{word} is not one of {name}'s words: {'=, '.join(words)}=")
    asked = {**words, **dict(word.split("=", 1) for word in given)}
    for key in PATHS & asked.keys():
        asked[key] = paths.expanded(asked[key])  # after key= no shell expands a tilde
    action(asked)


def main() -> None:
    """The command: exit code 2 and one line where the words or the files are wrong."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        streams.print_text(usage())
        return
    streams.replace_what_has_no_code()
    warnings.showwarning = lambda message, *_, **__: streams.print_line(
        f"note: {message}", to_stderr=True
    )
    try:
        run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        streams.print_line(f"error: {error}", to_stderr=True)
        sys.exit(2)
