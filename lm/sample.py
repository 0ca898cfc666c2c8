"""Continue a prompt with a trained model.

python -m lm.sample run=latest prompt="The import" temperature=0.8 n=3
python -m lm.sample interactive=true
"""

if __name__ == "__main__":
    from lm.launch import entry

    entry.begin("sample")

from lm.generate import generate_text, readable
from lm.launch import cli
from lm.models.base import LanguageModel
from lm.record.run import Run
from lm.settings.commands import SampleConfig
from lm.system import devices
from lm.system.errors import ConfigError
from lm.system.streams import print_line, print_text

COMMANDS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "seed": "seed",
    "len": "max_tokens",
}
HELP = ":temp 0.8   :top_k 40   :top_p 0.9   :seed 1   :len 200   :quit, or any text to continue"


def command(cfg: SampleConfig) -> None:
    """Print samples, or read prompts until the end of input."""
    run = Run.open(cfg.run)
    model = run.model(cfg.checkpoint).to(devices.choose(cfg.device))
    if cfg.interactive:
        prompt_line(run, model, cfg)
        return
    prompt = cfg.prompt
    if prompt is None:
        prompt = readable(run.cfg.corpus.prompt, run.tokenizer)
    for i in range(cfg.n):
        if cfg.n > 1:
            print_line(f"--- {i + 1} of {cfg.n}")
        write(run, model, cfg, prompt, cfg.seed + i)


def write(run: Run, model: LanguageModel, cfg: SampleConfig, prompt: str, seed: int) -> None:
    """Print the prompt and its continuation as it is made."""
    pieces = generate_text(
        model,
        run.tokenizer,
        prompt,
        max_tokens=cfg.max_tokens,
        temperature=cfg.temperature,
        top_k=cfg.top_k,
        top_p=cfg.top_p,
        seed=seed,
        stop=cfg.stop,
        compiled=cfg.compile,
    )
    first = next(pieces, "")  # a prompt that cannot be read fails here, before anything is printed
    print_text(prompt + first, end="")
    for piece in pieces:
        print_text(piece, end="")
    print_line()


def prompt_line(run: Run, model: LanguageModel, cfg: SampleConfig) -> None:
    """Read prompts until the end of input; lines that begin with a colon change settings."""
    print_line(f"{run.path}: {run.cfg.model.name} on {run.cfg.corpus.name}")
    print_text(HELP)
    seed = cfg.seed
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            print_line()
            return
        if line in (":quit", ":q"):
            return
        if not line.startswith(":"):
            write(run, model, cfg, line, seed)
            seed += 1  # so that the same prompt given again has another continuation
            continue
        word, _, value = line.removeprefix(":").partition(" ")
        if word not in COMMANDS:
            print_text(HELP)
            continue
        try:
            cfg = cli.change(cfg, f"{COMMANDS[word]}={value}")
            seed = cfg.seed
        except ConfigError as error:
            print_line(str(error), to_stderr=True)


if __name__ == "__main__":
    cli.main(SampleConfig, command)
