"""Complete commands, keys and values of `lm` with the tab key, in bash, zsh or fish.

source <(python -m lm.completion bash)     # in ~/.bashrc; for zsh in ~/.zshrc
python -m lm.completion fish | source      # in ~/.config/fish/config.fish

The scripts ask `lm _complete LINE`, which reads the settings where they are declared.
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("completion")

import contextlib
import glob
import os
import shlex
from collections.abc import Iterable

from lm import config
from lm.launch import cli, keys, presets
from lm.settings import commands
from lm.settings.commands import CompletionConfig
from lm.system import files, streams
from lm.system.errors import ConfigError

# Bash ends words at = and : too, and replaces only what follows the last of them; within quotes it
# replaces the whole word. It quotes nothing that it inserts.
BASH = r"""
_lm() {
    local line=${COMP_LINE:0:COMP_POINT} last='([^[:space:]\\]|\\.)+$' start="" i IFS=$'\n'
    if [[ $line =~ $last && $BASH_REMATCH != "$2" ]]; then
        start=${BASH_REMATCH%"${BASH_REMATCH##*[=:]}"}
    fi
    COMPREPLY=($(lm _complete "$line" 2>/dev/null))
    [[ ${COMP_WORDS[COMP_CWORD]} == [\'\"]* ]] && return
    COMPREPLY=("${COMPREPLY[@]#"$start"}")
    for i in "${!COMPREPLY[@]}"; do
        [[ ${COMPREPLY[i]} == *[^[:alnum:]_=./:,@+~^%-]* ]] || continue
        COMPREPLY[i]=$(printf %q "${COMPREPLY[i]}")
    done
    [[ ${#COMPREPLY[@]} != 1 || $COMPREPLY == *[=./] ]] || COMPREPLY+=" "
}
complete -o nospace -F _lm lm
"""
ZSH = r"""
_lm() {
    local -a found
    found=("${(@f)$(lm _complete "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    compadd -S '' -- ${(M)found:#*[=./]}
    compadd -- ${found:#*[=./]}
}
compdef _lm lm
"""
FISH = r"""
complete -c lm -f -a '(lm _complete (commandline -cp))'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
OPTIONS = ["--help"]
HYDRA_OPTIONS = ["--help", "-m", "--multirun", "--cfg", "--config-dir"]
GROUPS = (*config.GROUPS, "experiment", "hydra/launcher", keys.SWEEPER)
FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
NEWEST = ("run", "resume", "sweep", "hydra.sweep.dir")  # keys for which `latest` is a value
END = "\0"  # of a line, in no word


def command(cfg: CompletionConfig) -> None:
    """Print the script of each shell."""
    if not cfg.shells or not set(cfg.shells) <= set(SCRIPTS):
        raise ConfigError(f"{' '.join(cfg.shells) or 'no shell'}: give {' or '.join(SCRIPTS)}")
    for shell in cfg.shells:
        streams.print_text(SCRIPTS[shell].strip())


def answer(line: str) -> None:
    """Print what the last word of a line can become, one a line."""
    cli.prepare_streams()
    words = as_a_shell(line)[1:]
    try:
        found = completed(words)
    except (ValueError, OSError):  # a choice that does not exist: as without it
        found = completed([word for word in words[:-1] if "=" not in word] + words[-1:])
    for word in found:
        streams.print_line(word)


def as_a_shell(line: str) -> list[str]:
    """The words of a line without their quotes, of which the last may not be closed yet."""
    for quote in ("", "'", '"'):
        with contextlib.suppress(ValueError):  # this one is not open
            words = shlex.split(line + END + quote)
            return [*words[:-1], words[-1].removesuffix(END)]
    return line.split()


def completed(words: list[str]) -> list[str]:
    """The whole words that the last one can become; `words` are those after `lm`."""
    word = words[-1] if words else ""
    before = [other for other in words[:-1] if other]
    verb = " ".join(before[:2])
    if before[:1] != ["tokenizer"] and verb not in commands.COMMANDS:
        verb = " ".join(before[:1])
    if verb not in commands.COMMANDS:
        start = f"{verb} " if verb else ""
        names = [n.removeprefix(start) for n in commands.COMMANDS if n.startswith(start)]
        options = OPTIONS if names else ()
        return _starting([*(name.partition(" ")[0] for name in names), *options], word)
    if word.startswith("-"):
        return _starting(HYDRA_OPTIONS if verb == "train" else OPTIONS, word)
    if verb == "completion":
        return _starting(SCRIPTS, word)
    plus = word[: len(word) - len(word.lstrip("+"))]  # of +key=value, which Hydra takes
    known = _keys(verb, before)
    key, equals, value = word.removeprefix(plus).partition("=")
    if equals:
        start, comma, last = value.rpartition(",")  # in a sweep, or of several runs
        setting = known.get(f"{key}=")
        if setting is None:  # corpus.parts.NAME.path has a name of the user's own in it
            setting = keys.Key(key, None, "", is_text=key.endswith(".path"))
        return [f"{plus}{key}={start}{comma}{end}" for end in _values(setting, last)]
    found = [plus + name for name in _starting(known, key, until=".")]
    if len(before) == 1:  # check transfer
        start = f"{verb} {word}"
        found += [name.removeprefix(f"{verb} ") for name in _starting(commands.COMMANDS, start)]
    if verb in ("report", "sync"):  # they take folders without a key
        found += _paths(word)
    return found


def _keys(verb: str, words: list[str]) -> dict[str, keys.Key]:
    """What can be set, by its name as it is typed: KEY=."""
    sections = keys.sections(verb, words)
    found = [key for section in sections for key in section.keys]
    if keys.takes_settings(verb):
        for section in keys.sections("train", words):
            found += section.keys if section.group else []
        names = {group: presets.names(group, words) for group in GROUPS}
        names[keys.SWEEPER] = ["basic", "lm"]
        found += [keys.Key(group, None, "", values=names[group]) for group in GROUPS]
        found += [keys.Key(name, None, "", is_text=True) for name in FOLDERS]
    return {f"{key.name}=": key for key in found}


def _starting(names: Iterable[str], start: str, until: str = "") -> list[str]:
    """The names that begin so, each up to the next `until`: mod becomes model= and model. first."""
    found = []
    for name in names:
        if name.startswith(start):
            end = name.find(until, len(start)) if until else -1
            found.append(name if end < 0 else name[: end + 1])
    return list(dict.fromkeys(found))


def _values(key: keys.Key, start: str) -> list[str]:
    """What a value that begins so can be: one of a list, the default, or a file."""
    likely = ["latest"] if key.name in NEWEST else filter(None, [key.default])
    found = _starting(key.values or likely, start)
    return found + (_paths(start) if key.is_text else [])


def _paths(start: str) -> list[str]:
    """The files and folders that begin so, a folder with a slash behind it."""
    home = files.expanded(start)
    found = sorted(glob.glob(f"{glob.escape(home)}*"))
    return [start + path[len(home) :] + "/" * os.path.isdir(path) for path in found]


if __name__ == "__main__":
    cli.main(CompletionConfig, command, paths="shells")
