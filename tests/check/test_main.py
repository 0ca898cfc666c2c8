"""The command python -m lm.check: exit codes, and models of one's own."""


def test_a_check_that_fails_exits_with_1(command, tmp_path):
    """And a good one with 0; a model of one's own is named on the command line alone."""
    (tmp_path / "leaky.py").write_text(LEAKY, encoding="utf-8")
    (tmp_path / "conf/model").mkdir(parents=True)
    yaml = "defaults: [{/schema/model@_here_: leaky}, _self_]\n"
    (tmp_path / "conf/model/leaky.yaml").write_text(yaml)
    words = ("--config-dir", "conf", "model=leaky", "grammar=false")
    done = command("lm.check", "import=leaky", *words)
    assert done.returncode == 1, done.stderr
    assert "it sees the future" in done.stdout
    unknown = command("lm.check", *words)
    assert unknown.returncode == 2


def test_a_model_that_no_memory_holds_is_named_before_it_is_made(command):
    """The check made it, until the system ended the process or PyTorch's allocator gave up."""
    words = ("model=transformer", "model.n_embd=65536", "model.n_layer=256", "grammar=false")
    done = command("lm.check", *words)
    assert done.returncode == 1
    assert "weights of model=transformer take" in done.stderr and "lower model.n" in done.stderr


LEAKY = """
from dataclasses import dataclass
from typing import ClassVar
from torch import nn
from lm.config import ModelConfig
from lm.models.base import LanguageModel

@dataclass
class LeakyConfig(ModelConfig):
    builds: ClassVar[str] = "leaky:Leaky"
    name: str = "leaky"

class Leaky(LanguageModel):
    def __init__(self, cfg, vocab_size):
        super().__init__(cfg, vocab_size)
        self.wte = nn.Embedding(vocab_size, 16)
        self.head = nn.Linear(16, vocab_size)

    def forward(self, ids):
        x = self.wte(ids)
        return self.head(x + x.mean(dim=1, keepdim=True)).float()
"""


def test_no_file_can_name_a_module_to_import(command, tiny, tmp_path):
    (tmp_path / "evil.py").write_text("open('done', 'w')")
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/evil.yaml").write_text(
        "defaults: [{/schema/model@_here_: bigram}, _self_]\nimport: evil\nbuilds: 'evil:x'\n"
    )
    done = command("lm.train", "--config-dir", "conf", *tiny, "model=evil")
    assert done.returncode == 2
    assert "'import' not in" in done.stderr or "unknown setting" in done.stderr
    saved = tmp_path / "run"
    saved.mkdir()
    (saved / "config.resolved.yaml").write_text(
        "import: evil\nmodel: {name: evil, builds: 'evil:x'}"
    )
    assert command("lm.sample", f"run={saved}").returncode == 2
    assert not (tmp_path / "done").exists()


def test_an_import_that_is_not_there_is_told_in_one_line(command):
    done = command("lm.check", "import=nowhere.mine", "model=mine")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "import=nowhere.mine: there is no such module" in done.stderr
