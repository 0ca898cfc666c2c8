"""Tokenizers that stand on their own: numpy, regex and the standard library.

tokenizer = train("bpe", documents, vocab_size=1024); tokenizer.save("t.json");
load("t.json").encode("text")
"""

from lm.tokenizers.base import EOT, Tokenizer, TokenizerFormatError
from lm.tokenizers.bpe import BPETokenizer
from lm.tokenizers.byte import ByteTokenizer
from lm.tokenizers.char import CharTokenizer
from lm.tokenizers.files import from_json, load
from lm.tokenizers.training import train

__all__ = [
    "EOT",
    "BPETokenizer",
    "ByteTokenizer",
    "CharTokenizer",
    "Tokenizer",
    "TokenizerFormatError",
    "from_json",
    "load",
    "train",
]
