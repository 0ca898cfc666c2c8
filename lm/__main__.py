"""The command `lm`: each command of the package by its name.

lm train model=gru            # what python -m lm.train model=gru does
python -m lm train model=gru  # the same, where no script `lm` is installed
"""

import difflib
import runpy
import sys

from lm.launch import entry


def main() -> None:
    """Run the command that the first word names, as `python -m lm.NAME` would."""
    entry.begin("lm")
    verb, *words = sys.argv[1:]
    if verb == "_complete":  # what the scripts of lm.completion call
        from lm import completion

        completion.answer(" ".join(words))
        return
    check(verb)
    sys.argv[1:] = words
    runpy.run_module(f"lm.{verb}", run_name="__main__", alter_sys=True)


def check(verb: str) -> None:
    """Exit with code 2 and one line unless there is such a command."""
    from lm.launch import cli
    from lm.settings import commands
    from lm.system.errors import ConfigError

    if verb in commands.VERBS:
        return
    cli.prepare_streams()
    with cli.errors_in_one_line():
        near = difflib.get_close_matches(verb, commands.VERBS, n=1, cutoff=0.5)
        if "=" in verb or verb.startswith("-"):
            near = [f"train {verb}"]
        hint = f"did you mean lm {near[0]}?" if near else f"known: {', '.join(commands.VERBS)}"
        raise ConfigError(f"lm {verb} is no command ({hint})")


if __name__ == "__main__":
    main()
