"""Train a tokenizer by name.

train("bpe", ["some text"], vocab_size=300, pattern="gpt4")
"""

import warnings
from collections.abc import Callable, Iterable, Sequence

from lm.tokenizers.base import EOT, Tokenizer
from lm.tokenizers.bpe import BPETokenizer
from lm.tokenizers.bpe_train import TIE_BREAKS, learn_merges
from lm.tokenizers.byte import ByteTokenizer
from lm.tokenizers.char import CharTokenizer
from lm.tokenizers.count import count_chunks
from lm.tokenizers.split import Splitter

Progress = Callable[[int, int], None]


def train(
    name: str,
    documents: Iterable[str],
    *,
    specials: Sequence[str] = (EOT,),
    progress: Progress | None = None,
    **settings: object,
) -> Tokenizer:
    """A tokenizer of kind char, byte or bpe for the documents; specials take the last ids, in their
    order. Raises ValueError for an unknown name or setting, or a value out of bounds.

    Settings, of bpe only: vocab_size (specials and the 256 bytes included), pattern (gpt2, gpt4 or
    a regular expression), tie_break (first-pair or greatest-bytes). `progress(done, total)` counts
    merges. Warns where the text runs out of pairs before vocab_size is reached.
    """
    if name not in _TRAINERS:
        raise ValueError(f"tokenizer {name!r} is not one of {', '.join(_TRAINERS)}")
    specials = tuple(specials)
    if len(set(specials)) < len(specials):
        raise ValueError(f"specials={specials!r}: each may be there once")
    if name != "bpe" and settings:
        raise ValueError(f"tokenizer {name} has no setting {sorted(settings)[0]}")
    return _TRAINERS[name](documents, specials, progress, **settings)


def _train_char(
    documents: Iterable[str], specials: Sequence[str], progress: Progress | None
) -> CharTokenizer:
    chars: set[str] = set()
    for document in documents:
        for special in sorted(specials, key=len, reverse=True):
            document = document.replace(special, "")
        chars.update(document)
    return CharTokenizer(chars, specials)


def _train_byte(
    documents: Iterable[str], specials: Sequence[str], progress: Progress | None
) -> ByteTokenizer:
    return ByteTokenizer(specials)


def _train_bpe(
    documents: Iterable[str],
    specials: Sequence[str],
    progress: Progress | None,
    vocab_size: int = 1024,
    pattern: str = "gpt4",
    tie_break: str = "first-pair",
) -> BPETokenizer:
    n_merge = vocab_size - 256 - len(specials)
    if n_merge < 0:
        raise ValueError(
            f"vocab_size={vocab_size} is below {256 + len(specials)}: "
            f"the 256 bytes and {len(specials)} special tokens come first"
        )
    if tie_break not in TIE_BREAKS:
        raise ValueError(f"tie_break={tie_break} is not one of {', '.join(TIE_BREAKS)}")
    splitter = Splitter(pattern)
    counts = count_chunks(documents, splitter, specials)
    merges = learn_merges(counts, n_merge, tie_break, progress)
    tokenizer = BPETokenizer.of_merges(merges, pattern, specials, tie_break)
    if len(merges) < n_merge:
        warnings.warn(
            f"the text has pairs for {tokenizer.vocab_size} tokens only, "
            f"not vocab_size={vocab_size}",
            stacklevel=3,
        )
    return tokenizer


_TRAINERS: dict[str, Callable[..., Tokenizer]] = {
    "char": _train_char,
    "byte": _train_byte,
    "bpe": _train_bpe,
}
