"""The 256 bytes as tokens: no training, no unknown text, and long sequences.

ByteTokenizer().encode("hi")   # [104, 105]
"""

from collections.abc import Sequence

import numpy as np

from lm.tokenizers.base import EOT, Tokenizer
from lm.tokenizers.text import encode_texts


class ByteTokenizer(Tokenizer):
    """Id = byte; specials follow from 256 on."""

    name = "byte"

    def __init__(self, specials: Sequence[str] = (EOT,)):
        tokens = {byte: bytes([byte]) for byte in range(256)}
        super().__init__(tokens, {special: 256 + k for k, special in enumerate(specials)})

    def encode_bytes(self, data: bytes) -> list[int]:
        return list(data)

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        raw = encode_texts(texts)
        counts = np.array([len(data) for data in raw], np.int64)
        ids = np.frombuffer(b"".join(raw), np.uint8).astype(self.dtype)
        return ids, counts

    def content(self) -> dict[str, object]:
        return {}
