"""English-looking sentences from a probabilistic grammar whose entropy is known exactly.

    next(sentences(1, seed=0))          # "the old farmer who visits these pilots believes that ..."
    ENGLISH.facts()["floor_bpb"]        # bits per byte of a perfect model: no model can do better

Because a sentence has one derivation, its probability is the product of the rules in it, and the
entropy of sentences is that of derivations, which a linear system gives without sampling. A
sentence has one derivation because no word belongs to two categories; a noun phrase has at most
one modifier after its noun, each kind opens with a word of its own, and it belongs to the nearest
noun; only whole sentences are joined, by a comma; brackets close what they opened. (The tests
build the SLR(1) parse table of these rules: without a conflict, which proves it for every length.)
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import NamedTuple

import numpy as np

from lm.config import GrammarConfig
from lm.corpora.base import Corpus

BATCH = 8192  # sentences grown at a time; part of what a seed means

# A line is a symbol and what it becomes, each choice with its probability. Capitals are symbols,
# all else is text. _s is singular, _p plural: a verb agrees with a noun that may be far back.
RULES = """
S      .70 C . | .30 C , LINK S
C      .55 NP_s VP_s | .45 NP_p VP_p
PP     .50 P NP_s | .50 P NP_p
OBJ    .55 NP_s | .45 NP_p
WHOM   .50 NP_s TV_s | .50 NP_p TV_p
"""
# Each rule stands for two: n is s in one and p in the other.
NUMBERED_RULES = """
NP_n   .76 HEAD_n | .24 HEAD_n TAIL_n
TAIL_n .46 PP | .20 who VP_n | .20 whom WHOM | .07 ( C ) | .07 [ C ]
HEAD_n .55 DET NB_n | .45 DET_n NB_n
NB_n   .65 N_n | .35 ADJ NB_n
VP_n   .24 IV_n | .16 IV_n ADV | .36 TV_n OBJ | .12 BE_n ADJ | .12 SV_n that C
"""
# The words of a category from frequent to rare: the one at rank r has probability ~ 1/r (Zipf).
WORDS: dict[str, str] = {
    "LINK": "and but so while because although until",
    "DET": "the my your their",
    "DET_s": "this every one each",
    "DET_p": "these some many several",
    "BE_s": "is seems",
    "BE_p": "are seem",
    "P": "near behind with beside above beyond under against",
    "ADV": "today slowly often here again loudly quietly well never alone",
    "ADJ": "old young tall happy quiet small brave clever tired famous strange honest lazy proud "
    "gentle angry bright careful hungry lonely modest nervous polite rude silent wise",
}
# Singular nouns, and verbs as they stand in the plural: an s makes the other number of both.
NOUNS: str = (
    "farmer teacher doctor king sailor friend brother student painter poet singer dog neighbor "
    "pilot baker soldier lawyer tailor hunter dancer driver author gardener horse actor nurse "
    "miner banker barber clown cousin editor giant guest hermit juggler knight monk nephew orphan "
    "parrot plumber prince queen rabbit ranger robber scholar shepherd stranger tiger uncle "
    "visitor waiter weaver widow wizard wolfhound writer"
)
VERBS: dict[str, str] = {
    "IV": "sleep laugh sing wait work smile travel argue swim complain dream faint listen shiver "
    "snore stumble tremble whistle yawn",
    "TV": "see like help follow visit know admire fear meet remember call greet avoid trust find "
    "praise forget ignore scold surprise thank tease warn",
    "SV": "say think believe hope claim doubt suspect insist imagine",
}


class Level(NamedTuple):
    """The nodes at one depth of the trees of all sentences, from left to right."""

    nodes: np.ndarray  # (n,) ids of symbols and texts
    inner: np.ndarray  # (m,) places of the symbols in `nodes`
    first: np.ndarray  # (m,) place of each symbol's first child in the next level
    width: np.ndarray  # (m,) number of its children


class PCFG:
    """A probabilistic context-free grammar: {"S": [(0.5, "a S"), (0.5, "b")]}.

    Symbols are the keys; any other word of a right side is text. Neighbours are joined by a space,
    but not before , . ) ] nor after ( [. Raises ValueError if the choices of a symbol do not sum
    to 1, or if sentences would grow without limit.
    """

    def __init__(self, rules: Mapping[str, list[tuple[float, str]]], start: str = "S"):
        self.rules = dict(rules)
        self.names = list(rules)  # by id: symbols first, then texts
        self.n_symbol = len(rules)
        self.start = self.names.index(start)
        probabilities = []  # a list for each symbol
        right_sides = []  # a list of ids for each rule
        for symbol, choices in rules.items():
            p = [p for p, _ in choices]
            if abs(sum(p) - 1) > 1e-9 or min(p) <= 0:
                raise ValueError(f"the choices of {symbol} are {p}: they must sum to 1")
            probabilities.append(p)
            right_sides += [self._compile(text) for _, text in choices]
        if not all(right_sides):
            raise ValueError("a choice without text or symbols: there are no empty right sides")
        # R rules in one row, those of a symbol side by side.
        n_rules = [len(p) for p in probabilities]
        self.head = np.repeat(np.arange(self.n_symbol), n_rules)  # (R,)
        self.p = np.concatenate(probabilities)  # (R,)
        self.width = np.array([len(ids) for ids in right_sides])  # (R,) parts of the right side
        self.first = np.cumsum(self.width) - self.width  # (R,) where it begins in `parts`
        self.parts = np.concatenate(right_sides)
        # One sorted row serves all draws: the symbol's id + the cumulative probability.
        keys = []
        for i, p in enumerate(probabilities):
            cumulative = np.cumsum(p)
            keys.append(i + cumulative / cumulative[-1])
        self.keys = np.concatenate(keys)  # (R,)
        self.last = np.cumsum(n_rules) - 1  # (N,) last rule of a symbol
        radius = max(abs(np.linalg.eigvals(self.branching())))
        if radius >= 1 - 1e-9:
            raise ValueError(
                f"sentences of this grammar would grow without limit: the spectral radius of its "
                f"branching is {radius:.4f} and must be below 1"
            )

    def _compile(self, right: str) -> list[int]:
        """The ids of a right side with the spaces in it; new text gets a new id."""
        parts: list[str] = []
        for word in right.split():
            if parts and word not in {",", ".", ")", "]"} and parts[-1] not in {"(", "["}:
                parts.append(" ")
            parts.append(word)
        for part in parts:
            if part not in self.names:
                self.names.append(part)
        return [self.names.index(part) for part in parts]

    def branching(self) -> np.ndarray:
        """Mean number of symbols j (columns) in one expansion of symbol i (rows), (N, N)."""
        owner = np.repeat(np.arange(len(self.p)), self.width)  # the rule of each part
        inner = self.parts < self.n_symbol
        mean = np.zeros((self.n_symbol, self.n_symbol))
        rule = owner[inner]
        np.add.at(mean, (self.head[rule], self.parts[inner]), self.p[rule])
        return mean

    def facts(self) -> dict[str, float]:
        """Entropy and mean length of a sentence, and their quotient, exact up to rounding.

        A sentence expands symbol j visits[j] times on average, where visits = start + visits @
        branching; each expansion adds the entropy of its choice and the text in it.
        """
        start = np.eye(self.n_symbol)[self.start]  # (N,)
        visits = np.linalg.solve(np.eye(self.n_symbol) - self.branching().T, start)  # (N,)
        uses = visits[self.head] * self.p  # (R,) of each rule in a sentence
        texts = self.names[self.n_symbol :]
        n_bytes = np.array([0] * self.n_symbol + [len(text.encode()) for text in texts])
        length = uses @ np.add.reduceat(n_bytes[self.parts], self.first)
        bits = -uses @ np.log2(self.p)
        return {
            "floor_bpb": float(bits / length),
            "sentence_bits": float(bits),
            "sentence_bytes": float(length),
        }

    def generate(self, n: int, rng: np.random.Generator) -> list[str]:
        """n independent sentences.

        The distribution is exact up to float64: each expansion has a random number of its own,
        looked up in the cumulative probabilities, and none is used again. Speed comes
        from growing all sentences together.
        """
        levels = self._grow(n, rng)
        sizes = [np.ones(len(level.nodes), int) for level in levels]  # texts below each node
        for k in reversed(range(len(levels) - 1)):
            level = levels[k]
            sizes[k][level.inner] = np.add.reduceat(sizes[k + 1], level.first)
        ends = np.cumsum(sizes[0] + 1)  # a newline after each sentence
        newline = len(self.names)
        out = np.full(ends[-1], newline)
        place = ends - 1 - sizes[0]  # in `out`, where the text below each node begins
        for k, level in enumerate(levels):
            leaf = level.nodes >= self.n_symbol
            out[place[leaf]] = level.nodes[leaf]
            if len(level.inner):
                before = np.cumsum(sizes[k + 1]) - sizes[k + 1]
                shift = place[level.inner] - before[level.first]
                place = before + np.repeat(shift, level.width)
        texts = [*self.names, "\n"]
        ids: list[int] = out.tolist()
        return "".join([texts[i] for i in ids]).split("\n")[:-1]

    def _grow(self, n: int, rng: np.random.Generator) -> list[Level]:
        """The trees of n sentences, level by level from the start symbols."""
        levels = []
        nodes = np.full(n, self.start)
        while True:
            inner = np.flatnonzero(nodes < self.n_symbol)
            heads = nodes[inner]
            rule = np.searchsorted(self.keys, heads + rng.random(len(inner)), side="right")
            rule = np.minimum(rule, self.last[heads])  # where that sum was rounded up to head + 1
            width = self.width[rule]
            first = np.cumsum(width) - width
            levels.append(Level(nodes, inner, first, width))
            if not len(inner):
                return levels
            shift = np.repeat(self.first[rule] - first, width)
            nodes = self.parts[shift + np.arange(len(shift))]


def english() -> dict[str, list[tuple[float, str]]]:
    """The grammar of RULES, NUMBERED_RULES and the words, as PCFG takes it."""
    rules: dict[str, list[tuple[float, str]]] = {}
    singular = NUMBERED_RULES.replace("_n", "_s")
    plural = NUMBERED_RULES.replace("_n", "_p")
    for line in (RULES + singular + plural).split("\n"):
        if line:
            symbol, choices = line.split(maxsplit=1)
            rules[symbol] = []
            for choice in choices.split("|"):
                p, right = choice.split(maxsplit=1)
                rules[symbol].append((float(p), right.strip()))
    words: dict[str, list[str]] = {category: text.split() for category, text in WORDS.items()}
    words["N_s"] = NOUNS.split()
    words["N_p"] = [noun + "s" for noun in NOUNS.split()]
    for category, verbs in VERBS.items():
        words[f"{category}_s"] = [verb + "s" for verb in verbs.split()]
        words[f"{category}_p"] = verbs.split()
    for category, ranked in words.items():
        # fsum, since sum rounds differently from Python 3.12 on
        total = math.fsum(1 / rank for rank in range(1, len(ranked) + 1))
        rules[category] = [(1 / rank / total, word) for rank, word in enumerate(ranked, start=1)]
    return rules


ENGLISH = PCFG(english())


def sentences(n: int, seed: int) -> Iterator[str]:
    """n sentences; a smaller n of the same seed gives the first of them."""
    batches = (ENGLISH.generate(BATCH, np.random.default_rng([seed, i])) for i in count())
    return islice((sentence for batch in batches for sentence in batch), n)


class Grammar(Corpus):
    """Sentences as documents, each ended by the only full stop in it.

    A perfect model therefore pays nothing for the end of a document, and `floor_bpb` needs no
    correction for it.
    """

    cfg: GrammarConfig

    def source(self) -> dict[str, object]:
        rules = json.dumps(ENGLISH.rules)
        return {
            "name": "grammar",
            "n_documents": self.cfg.n_documents,
            "seed": self.cfg.seed,
            "batch": BATCH,
            "rules": hashlib.sha256(rules.encode()).hexdigest(),
        }

    def documents(self) -> Iterator[str]:
        return sentences(self.cfg.n_documents, self.cfg.seed)

    def facts(self) -> dict[str, float]:
        return ENGLISH.facts()
