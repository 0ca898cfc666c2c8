"""lm: from raw text to a tuned language model that a person can see through, track and sweep."""

__version__ = "0.1.0"
