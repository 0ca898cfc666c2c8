"""A run from elsewhere reads, sends and starts nothing before that is shown and allowed."""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lm import config, evaluate, mix
from lm.check import doctor
from lm.data import pipeline
from lm.launch import jobs, resume
from lm.lens.subject import Subject
from lm.record import ownership
from lm.report import page, paired
from lm.settings.commands import ReportConfig
from lm.system import files, foreign
from lm.system.errors import ConfigError

OLD = Path(__file__).parent.parent / "data" / "before_redesign"
FILES = ("corpus=files", "corpus.path=mine.txt", "track=off")


def resumed(*words: str) -> None:
    jobs.claim(resume.job(["resume=run", *words]))


@pytest.fixture
def run(cfg, tmp_path) -> Path:
    """A run of this user's, of which the settings alone are there."""
    jobs.claim(jobs.Job(cfg(*FILES), Path("run"), []))
    return Path("run")


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A run of an older version, beside the cache that it was made with."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("LM_CACHE_DIR", "cache")
    return Path("run")


def test_a_report_and_the_doctor_read_nothing_outside_a_strangers_run(
    trained, monkeypatch, tmp_path
):
    """They need no word: the text that its settings name is neither read nor looked for."""
    run = trained("model=bigram")
    forget_signature(run)
    before = config.load(run / config.RESOLVED).corpus.path
    rewrite(run, f"path: {before} -> path: {tmp_path}/private.txt")
    (tmp_path / "private.txt").write_text("private")
    opened = []
    real = foreign.open_plain
    monkeypatch.setattr(
        foreign,
        "open_plain",
        lambda path, *a, **k: opened.append(Path(path)) or real(path, *a, **k),
    )
    monkeypatch.setattr(pipeline, "prepare_corpus", lambda *_: pytest.fail("a text is read"))
    doctor.examine(run)
    page.write(ReportConfig(out="page.html"), [run], quiet=True)
    key = Path(os.environ["XDG_CONFIG_HOME"])  # which tells whose run it is
    allowed = (run, files.cache_dir().absolute(), key, Path(page.__file__).parent.parent)
    for path in map(Path.absolute, opened):
        assert any(path.is_relative_to(folder) for folder in allowed), path


def rewrite(run: Path, *changes: str) -> None:
    """Change settings in the run's file by hand: "path: mine.txt -> path: other.txt"."""
    text = (run / config.RESOLVED).read_text()
    for change in changes:
        before, after = change.split(" -> ")
        assert before in text
        text = text.replace(before, after)
    (run / config.RESOLVED).write_text(text)


def forget_signature(run: Path) -> None:
    path = run / config.RESOLVED
    path.write_text(re.sub("#.*", "", path.read_text()))


def test_a_run_of_one_s_own_needs_no_word_moved_and_copied_too(run):
    resumed("train.steps=3000", "train.n_proc=2")
    resumed()
    run.rename("elsewhere")
    shutil.copytree("elsewhere", "run")
    resumed("track.mode=offline", "track.entity=me")
    ownership.check_reads(run, config.load(run / config.RESOLVED), trust=False)
    rewrite(run, "log_every: 10 -> log_every: 5")  # by hand, what acts on nothing outside
    resumed()


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["path: mine.txt -> path: ~/private.txt"], "would read /.*/private.txt: if you want that"),
        (["path: mine.txt -> path: [a, /**/b]"], r"would read a and /\*\*/b: "),
        (["also: [] -> also: [mine.txt]"], "would read mine.txt: "),
        (["also: [] -> also: [names, /etc/passwd]"], "would read mine.txt and /etc/passwd: "),
        (["init_from: '' -> init_from: /home/x/model"], "read mine.txt and /home/x/model: "),
        (["n_proc: 1 -> n_proc: 2"], "would read mine.txt, start 2 processes: "),
        (
            ["mode: 'off' -> mode: online", "entity: null -> entity: x", "s: model -> s: all"],
            "read mine.txt, send its text and model to W&B's x/lm: ",
        ),
        (["mode: 'off' -> mode: auto"], "curves and model to W&B's your own account/lm: "),
    ],
)
def test_what_others_settings_act_on_is_told_in_one_line(run, changes, told, is_signed, caplog):
    rewrite(run, *changes)
    if not is_signed:
        forget_signature(run)
    before = (run / config.RESOLVED).read_bytes()
    with pytest.raises(ConfigError, match=told) as caught:
        resumed()
    assert "give trust=true" in str(caught.value) and "\n" not in str(caught.value)
    assert (run / config.RESOLVED).read_bytes() == before
    resumed("trust=true")
    assert "would read" in caplog.text
    resumed()  # from now on it is this user's


def test_a_run_of_another_user_is_told_apart(run, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="was not made by you on this machine"):
        resumed()
    with pytest.raises(ConfigError, match="trust=yes: give true or false"):
        resumed("trust=yes")
    resumed("trust=true")
    assert os.stat("other/lm/key").st_mode & 0o777 == 0o600


def test_nothing_outside_needs_no_word(cfg):
    config.save(cfg("track=off"), Path("run.yaml"))
    Path("run").mkdir()
    Path("run.yaml").rename(Path("run") / config.RESOLVED)
    resumed()


def test_without_a_home_a_run_is_written_unsigned(cfg, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    ownership.save(cfg(*FILES), tmp_path)
    assert config.load(tmp_path / config.RESOLVED) == cfg(*FILES)
    assert not ownership.is_signed(tmp_path, cfg(*FILES))


def test_runs_that_start_at_once_make_one_key(cfg, tmp_path):
    made = cfg(*FILES)
    outs = [tmp_path / str(i) for i in range(8)]
    for out in outs:
        out.mkdir()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda out: ownership.save(made, out), outs))
    assert all(ownership.is_signed(out, made) for out in outs)


def test_an_older_run_is_known_by_the_text_in_the_cache(old):
    resume.job(["resume=run", "train.steps=30"])
    mode = "mode: 'off' -> mode: auto"
    rewrite(old, mode)  # to one's own account
    resume.job(["resume=run"])
    for change in ("entity: null -> entity: x", "path: toy.txt -> path: x/private.txt"):
        rewrite(old, change)
        with pytest.raises(ConfigError, match="was not made by you"):
            resume.job(["resume=run"])
        rewrite(old, " -> ".join(reversed(change.split(" -> "))))
    shutil.rmtree("cache")
    with pytest.raises(ConfigError, match="was not made by you"):
        resume.job(["resume=run"])


def test_a_run_that_another_user_signed_is_no_older_run(old, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "other"))
    resumed("track.mode=offline")  # signs it
    resumed()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "mine"))
    with pytest.raises(ConfigError, match="was not made by you"):
        resumed()


def test_the_verbs_that_score_a_run_on_its_text_ask_too(old):
    shutil.rmtree("cache")
    told = "run was not made by you on this machine, and would read toy.txt: "
    for command in (
        lambda: evaluate.command(evaluate.EvaluateConfig(run="run")),
        lambda: mix.command(mix.MixConfig(runs="run,run")),
        lambda: paired.compare("run", "run"),
    ):
        with pytest.raises(ConfigError, match=told):
            command()
    assert not os.path.exists("cache")
    assert told in Subject.of_run("run", "best").missing
    evaluate.command(evaluate.EvaluateConfig(run="run", corpus="toy.txt"))
    assert Subject.of_run("run", "best", trust=True).missing == ""


def test_a_part_of_a_mix_is_read_as_a_text_is(cfg, run):
    mix_of_one = ("corpus=mix", "corpus.parts.a.path=mine.txt", "corpus.weights.a=1", "track=off")
    shutil.rmtree(run)
    jobs.claim(jobs.Job(cfg(*mix_of_one), run, []))
    resumed()
    rewrite(run, "path: mine.txt -> path: /etc/hostname")
    with pytest.raises(ConfigError, match="and would read /etc/hostname: if you want that"):
        resumed()
