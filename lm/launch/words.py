"""Words of the command line as Hydra is to read them: a text stays as it was typed.

    as_typed(["name=1e5", "corpus.path=my (1).txt"])     # name='1e5' corpus.path='my (1).txt'

Hydra has a grammar of its own for values: 1e5 is a number there, a parenthesis needs quotes, and a
comma separates the values of a sweep.
"""

import dataclasses
import os
import re
from collections.abc import Sequence

from lm.config import Config
from lm.launch import hydra_internals
from lm.launch.hydra_internals import UNREADABLE
from lm.settings import MISSING
from lm.settings.commands import TunerConfig
from lm.settings.reading import fields_of
from lm.system import files
from lm.system.errors import ConfigError
from lm.system.text import literal, shell_word

KEY = re.compile(r"\+{0,2}([a-z][\w.]*)=", re.ASCII)
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")  # Hydra's own paths
CHOICE = re.compile(r"choice\((.*)\)", re.DOTALL)
# Hydra's options that take a folder, in any of their spellings; argparse takes a shortened one too.
FOLDER_OPTION = re.compile(r"(--config-[dp][a-z]*|-cd|-cp)(=(.*))?", re.DOTALL)
QUOTE = '"'
BRACKET_OR_QUOTE = re.compile(r"""[\[\](){}'"]""")
# What stands in quotes or brackets, in which a comma separates no parts, or any other character.
ATOM = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\\.|.""", re.DOTALL)


@dataclasses.dataclass
class Kind:
    """What a setting takes: a text, a list of texts, or either of them."""

    is_text: bool = True
    is_list: bool = False
    is_path: bool = False
    has_choices: bool = False
    may_be_none: bool = False
    is_folder: bool = False  # of Hydra's: ${...} means what Hydra makes of it, wherever it stands


def as_typed(words: Sequence[str]) -> list[str]:
    """The words, with the values of text settings quoted where Hydra would read another text.

    What is in quotes already, `${...}`, and the commas of a sweep under -m mean what they mean to
    Hydra; a path that exists is that path. Raises ConfigError for what could mean several things.
    """
    is_sweep = "-m" in words or "--multirun" in words
    found = []
    is_folder = False  # of the option before it
    for word in words:
        if is_folder:
            found.append(files.expanded(word))
            is_folder = False
            continue
        option = FOLDER_OPTION.fullmatch(word)
        if option and option[2]:  # --config-dir=~/conf, which no shell expands
            found.append(f"{option[1]}={files.expanded(option[3])}")
            continue
        is_folder = option is not None
        match = KEY.match(word)
        kind = kind_of(match[1]) if match else None
        if match and kind:
            found.append(match[0] + _Word(match[0], kind, is_sweep).value(word[match.end() :]))
        else:
            found.append(word)
    return found


def kind_of(key: str) -> Kind | None:
    """What the text setting `key` takes; None if it is a number, a switch, a group or unknown."""
    if key in FOLDERS:
        return Kind(is_path=True, is_folder=True)
    group, _, name = key.rpartition(".")
    if group == TunerConfig.group:
        found = [f for f in dataclasses.fields(TunerConfig) if f.name == name]
    else:
        found = fields_of(Config, key)
    for f in found:
        may_be_none = f.type == (str | None)
        if "path" in f.metadata and f.type is not str:
            return Kind(is_text=f.type != list[str], is_list=True, is_path=True)
        if f.type == list[str]:
            return Kind(is_text=False, is_list=True)
        if f.type is str or may_be_none:
            is_path = "path" in f.metadata
            return Kind(
                is_path=is_path, has_choices="choices" in f.metadata, may_be_none=may_be_none
            )
    return None


def read(word: str) -> str:
    """The text that Hydra reads in a word KEY=TEXT."""
    text = word.partition("=")[2]
    value = hydra_internals.read_value(text)
    return value if isinstance(value, str) else text


@dataclasses.dataclass
class _Word:
    """A word that gives a text setting its value."""

    start: str  # KEY= with its plus signs
    kind: Kind
    is_sweep: bool

    def value(self, text: str) -> str:
        """The whole value as Hydra is to read it; one text for a list is a list of it."""
        if self.kind.is_list and not self.kind.is_text and self._is_one(text):
            return f"[{self._part(text)}]"
        if self.kind.is_path:
            text = files.expanded(text)
            if os.path.lexists(text):
                return text if _is_plain(text) else _quoted(text)
        value = hydra_internals.read_value(text)
        is_several = value is UNREADABLE or hydra_internals.is_sweep(value)
        if self.kind.is_folder and is_several:  # no sweep goes over it: a comma is one of the name
            return self._quoted(text)
        if value is UNREADABLE or (self.is_sweep and CHOICE.fullmatch(text)):
            return self._by_parts(text)
        if hydra_internals.is_sweep(value):
            return self._several(text, hydra_internals.is_choice(value))
        if isinstance(value, list) and self.kind.is_list:
            return self._list(text) if value else text
        if not self.kind.is_text or self._is_meant(text, value):
            return text
        is_other_path = self.kind.is_path and isinstance(value, str) and os.path.lexists(value)
        return text if is_other_path else self._quoted(text)

    def _is_one(self, text: str) -> bool:
        """Whether the value can be nothing but one text, as it has no comma and no bracket."""
        if self.kind.is_path and os.path.lexists(files.expanded(text)):
            return True
        value = hydra_internals.read_value(text)
        if value is UNREADABLE or value is None or hydra_internals.is_sweep(value):
            return False
        return (
            text not in ("", MISSING) and "${" not in text and not isinstance(value, (list, dict))
        )

    def _is_meant(self, text: str, value: object) -> bool:
        """Whether Hydra's reading of a value that is no list and no sweep is what was meant."""
        if value is None:
            return self.kind.may_be_none
        is_given = value == text or "${" in text or text.strip()[:1] in ("", "'", '"')
        return isinstance(value, str) and is_given

    def _by_parts(self, text: str) -> str:
        """A value that Hydra cannot read as it was typed, such as one with a parenthesis."""
        is_list = _is_bracketed(text) and self.kind.is_list
        is_several = self.is_sweep and "," in text
        choice = CHOICE.fullmatch(text)
        try:
            if is_list:
                return self._list(text)
            if is_several and choice:
                return self._parts(choice[1])  # in choice(...) Hydra loses the quotes
            if is_several:
                return self._parts(text)
        except ValueError:
            raise self._unclear(text) from None
        if not self.kind.is_text:
            raise self._unclear(text)
        return self._quoted(text)

    def _quoted(self, text: str) -> str:
        """A text that is no path of something there, in quotes."""
        return hydra_internals.quoted(text, "'") if self.kind.is_folder else _quoted(text)

    def _several(self, text: str, is_choice: bool) -> str:
        """A value that Hydra reads as that of a sweep, though it may be one text with a comma."""
        if self.is_sweep:
            if is_choice:
                return self._parts(text)
            return text
        if self.kind.has_choices:
            return text
        if is_choice and (self.kind.is_path or not self.kind.is_text):
            raise self._unclear(text)
        return _quoted(text) if self.kind.is_text else text

    def _list(self, text: str) -> str:
        return f"[{self._parts(text.strip()[1:-1])}]"

    def _parts(self, text: str) -> str:
        return ",".join(self._part(part.strip()) for part in split(text))

    def _part(self, text: str) -> str:
        """One text of a list or of a sweep; ValueError if Hydra cannot read it."""
        if self.kind.is_path:
            text = files.expanded(text)
            if os.path.lexists(text):
                return text if _is_plain(text) else _quoted(text)
        value = hydra_internals.read_value(text)
        if value is UNREADABLE and not self.kind.is_text and not BRACKET_OR_QUOTE.search(text):
            return _quoted(text)  # it can be nothing but one text of a list
        if value is UNREADABLE:
            raise ValueError(text)
        if isinstance(value, list):
            return self._list(text) if value else text
        if isinstance(value, str) or (value is None and self.kind.may_be_none):
            return text
        return _quoted(text)

    def _unclear(self, text: str) -> ConfigError:
        """An error with the ways to type the word in a shell."""
        inner = text[1:-1] if _is_bracketed(text) else text
        parts = ",".join(_in_quotes(part.strip()) for part in split(inner))
        ways = []
        if self.kind.is_text:
            ways.append(f"one text is {shell_word(self.start + _quoted(text, QUOTE))}")
        if self.kind.is_list:
            ways.append(f"a list is {shell_word(f'{self.start}[{parts}]')}")
        if inner is text and "," in text:
            how = "" if self.is_sweep else " with -m (--multirun)"
            ways.append(f"a sweep is {shell_word(self.start + parts)}{how}")
        known = "; ".join(ways)
        return ConfigError(f"{self.start}{text} is not clear, see README.md, Settings: {known}")


def _is_bracketed(text: str) -> bool:
    return text[:1] == "[" and text[-1:] == "]"


def _in_quotes(text: str) -> str:
    """The text in quotes, if it is not."""
    is_quoted = text[:1] in ("'", QUOTE) and isinstance(hydra_internals.read_value(text), str)
    return text if is_quoted else _quoted(text, QUOTE)


def _is_plain(text: str) -> bool:
    """Whether Hydra reads this very text in it."""
    return hydra_internals.read_value(text) == text and "${" not in text


def _quoted(text: str, mark: str = "'") -> str:
    """The text as a quoted value of Hydra's grammar, in which a `${` is a `${`."""
    return hydra_internals.quoted(literal(text), mark)


def split(text: str) -> list[str]:
    """The parts of a text between commas that stand in no quotes and no brackets."""
    parts = [""]
    depth = 0
    for atom in ATOM.findall(text):
        depth += (atom in "([{") - (atom in ")]}")
        if atom == "," and not depth:
            parts.append("")
        else:
            parts[-1] += atom
    return parts
