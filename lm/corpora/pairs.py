"""Pairs of sentences that differ in one word, of which only the first is grammatical.

    pairs("agreement_pp")[0]
    # ("my doctor near these kings sleeps.", "my doctor near these kings sleep.")

A model that gives the first the higher probability knows that rule of the grammar corpus (as in
BLiMP, Warstadt et al. 2020, arXiv 1912.00582). The second of each pair has no derivation in the
grammar, so its probability is 0 and a perfect model is right in all pairs; a coin is in half.
"""

import numpy as np

from lm.corpora.grammar import PCFG, english

N_PAIRS = 1000
SEED = 0  # of all pairs: they are the same in every run

# A sentence with one open place, @, and the categories of the right and of the wrong word for it.
# Symbols are those of the grammar.
TEMPLATES: dict[str, list[tuple[str, str, str]]] = {
    "agreement": [  # the verb stands beside its noun
        ("DET NB_s @ .", "IV_s", "IV_p"),
        ("DET NB_p @ .", "IV_p", "IV_s"),
    ],
    "agreement_pp": [  # across a noun of the other number
        ("HEAD_s P HEAD_p @ .", "IV_s", "IV_p"),
        ("HEAD_p P HEAD_s @ .", "IV_p", "IV_s"),
    ],
    "agreement_who": [
        ("HEAD_s who TV_s HEAD_p @ .", "IV_s", "IV_p"),
        ("HEAD_p who TV_p HEAD_s @ .", "IV_p", "IV_s"),
    ],
    "agreement_whom": [
        ("HEAD_s whom HEAD_p TV_p @ .", "IV_s", "IV_p"),
        ("HEAD_p whom HEAD_s TV_s @ .", "IV_p", "IV_s"),
    ],
    "agreement_brackets": [  # across a whole sentence about another number
        ("HEAD_s ( HEAD_p IV_p ADV ) @ .", "IV_s", "IV_p"),
        ("HEAD_p [ HEAD_s IV_s ADV ] @ .", "IV_p", "IV_s"),
    ],
    "determiner": [
        ("@ N_s IV_s .", "DET_s", "DET_p"),
        ("@ N_p IV_p .", "DET_p", "DET_s"),
    ],
    "transitivity": [
        ("HEAD_s @ .", "IV_s", "TV_s"),
        ("HEAD_p @ HEAD_s .", "TV_p", "IV_p"),
    ],
    "complement": [
        ("HEAD_s @ that HEAD_p IV_p .", "SV_s", "TV_s"),
        ("HEAD_p @ that HEAD_s IV_s .", "SV_p", "IV_p"),
    ],
    "brackets": [  # what was opened is closed
        ("HEAD_s ( HEAD_p IV_p @ IV_s .", ")", "]"),
        ("HEAD_p [ HEAD_s IV_s @ IV_p .", "]", ")"),
    ],
}
PHENOMENA = tuple(TEMPLATES)


def pairs(phenomenon: str, n: int = N_PAIRS) -> list[tuple[str, str]]:
    """n pairs (grammatical, not grammatical), the templates of the phenomenon by turns."""
    rng = np.random.default_rng([SEED, PHENOMENA.index(phenomenon)])
    templates = TEMPLATES[phenomenon]
    columns = [_of_template(*template, -(-n // len(templates)), rng) for template in templates]
    return [pair for row in zip(*columns, strict=True) for pair in row][:n]


def _of_template(
    text: str, right: str, wrong: str, n: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """n pairs of one template."""
    rules = english()
    sentences = PCFG({**rules, "TEMPLATE": [(1.0, text)]}, "TEMPLATE").generate(n, rng)
    right_words = _words(rules, right)
    wrong_words = _words(rules, wrong)
    # Frequent words more often, as in the corpus; of both categories the one at the same rank, so
    # that a verb stands beside its own other number and neither is the rarer word.
    n_ranks = min(len(right_words), len(wrong_words))
    weights = 1 / np.arange(1, n_ranks + 1)
    ranks = rng.choice(n_ranks, size=n, p=weights / weights.sum())
    found = []
    for sentence, rank in zip(sentences, ranks.tolist(), strict=True):
        good = _filled(sentence, right_words[rank])
        found.append((good, _filled(sentence, wrong_words[rank])))
    return found


def _words(rules: dict[str, list[tuple[float, str]]], category: str) -> list[str]:
    """The words of a category from frequent to rare; a bracket stands for itself."""
    return [word for _, word in rules[category]] if category in rules else [category]


def _filled(sentence: str, word: str) -> str:
    """The sentence with the word in its open place; a closing bracket follows without a space."""
    place = " @" if word in (")", "]") else "@"
    return sentence.replace(place, word)
