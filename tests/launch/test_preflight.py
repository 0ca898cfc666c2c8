"""Every mistake of a command is one line, before anything is made."""

from pathlib import Path

import pytest

from lm import config
from lm.config import Config
from lm.launch import compose, preflight
from lm.launch.words import as_typed
from lm.sweep import study
from lm.system.errors import ConfigError

BAD = {
    "model.n_layr=3": "unknown setting model.n_layr (did you mean model.n_layer?)",
    "+model.n_layr=3": "unknown setting model.n_layr (did you mean model.n_layer?)",
    "++model.n_layr=3": "unknown setting model.n_layr (did you mean model.n_layer?)",
    "+foo.bar=1": "unknown setting foo",
    "sed=3": "did you mean seed?",
    "model=transformr": "Available options in 'model': bigram",
    "nosuchgroup=x": "unknown setting nosuchgroup",
    "model.n_layer=three": "Value 'three' of type 'str' could not be converted to Integer",
    "model.n_layer=0": "model.n_layer=0: must be from 1 to 1024",
    "model.n_layer=-5": "model.n_layer=-5: must be from 1 to 1024",
    "model.n_layer=1.5": "Integer; model.n_layer takes a whole number, from 1 to 1024",
    "model.n_head=3": "model.n_embd=128 is not a multiple of model.n_head=3",
    "model.n_kv_head=3": "model.n_head=4 is not a multiple of model.n_kv_head=3",
    "model.n_embd=4": "which is odd",
    "model.dropout=1.5": "model.dropout=1.5: must be from 0.0 to 0.99",
    "model.activation=tanh": "model.activation=tanh: choose relu2 or gelu or swiglu",
    "model.norm=batch": "model.norm=batch: choose rmsnorm or layernorm",
    "model.qk_norm=maybe": "is not a valid bool",
    "model.context_len=1": "model.context_len=1: must be from 2 to 1048576",
    "optimizer.lr=nan": "optimizer.lr=nan: must be at least 0",
    "optimizer.lr=inf": "optimizer.lr=inf: must be at least 0",
    "optimizer.lr=-1e-3": "optimizer.lr=-0.001: must be at least 0",
    "optimizer.beta1=1.1": "optimizer.beta1=1.1: must be from 0.0 to 1.0",
    "optimizer=muon optimizer.momentum=1": "optimizer.momentum=1.0: must be from 0.0 to 0.9999",
    "optimizer=sgd": "Available options in 'optimizer': adamw muon",
    "schedule.warmup=2": "schedule.warmup=2.0: must be from 0.0 to 1.0",
    "train.steps=0": "train.steps=0: must be at least 1",
    "train.steps=1e3": "could not be converted to Integer",
    "train.steps=": "train.steps",
    "train.micro_batch=4 train.compile=graphs": "whole batches, and train.micro_batch=4",
    "train.patience=2 train.eval_every=0": "train.patience=2 counts evaluations: give train.eval_",
    "train.micro_batch=5": "train.batch_size=8 is not a multiple of train.micro_batch=5",
    "train.device=tpu": "train.device=tpu: choose auto or cpu or cuda or mps",
    "train.dtype=fp8": "train.dtype=fp8: choose auto or float32 or bfloat16",
    "train.prompts=hello": "train.prompts",
    "tokenizer.vocab_size=100": "tokenizer.vocab_size=100: must be at least 257",
    "tokenizer.tie_break=random": "choose first-pair or greatest-bytes",
    "corpus=files": "corpus.path has no value",
    "corpus.val_fraction=0.95": "corpus.val_fraction=0.95: must be from 0.001 to 0.9",
    "track.mode=maybe": "track.mode=maybe: choose auto or online or offline or off",
    "seed=-1": "seed=-1: must be from 0",
    "seed=99999999999999": "must be from 0",
    "seed": "seed is not key=value",
    "--steps 30": "--steps is no option: settings are key=value",
    "lr=1": "unknown setting lr (did you mean optimizer.lr?)",
    "steps=1 seed=1": "unknown setting steps (did you mean train.steps?)",
    "train.steps=1e4": "converted to Integer: write 10000; train.steps takes a whole number",
    "init_from=x model=gru tokenizer=char model.dropout=0": "leave out model=gru, tokenizer=char",
    "train.steps=5 train.tokens=99": "train.steps beside train.tokens=99: a run has one budget",
    "experiment=003_scaling_law train.steps=5 seed=0 train.tokens=9 model.n_embd=32": "one budget",
    "experiment=003_scaling_law model.n_layr=3": "did you mean model.n_layer?",
    "-m experiment=003_scaling_law model.n_layr=3": "did you mean model.n_layer?",
    "model=bigram -m seed=0,1": "seed=0,1: put -m and other options before the settings",
    "experiment=001_model_ladder": "a sweep of corpus, model, seed: python -m lm.train -m exper",
    "experiment=001_model_ladder model=gru seed=0": "this experiment is a sweep of corpus:",
    "+=gru": "+=gru is not key=value",  # Hydra fails an assertion of its own
    "seed=choice(1,": "seed=choice(1,: this cannot be read; seed takes a whole number, from 0 to",
    "-m seed=choice(1,": "seed=choice(1,: this cannot be read; seed takes a whole number, from 0",
    "seed=1,": "seed=1,: this cannot be read; seed takes a whole number, from 0 to",
    "-m seed=1,,2": "several are seed=A,B under -m",
    "-m seed=range(a,b)": "seed takes a whole number, from 0 to",
    "-m model=gru,": "model takes one of those that --help lists",
    "train.compile=[": "train.compile takes auto or on or off or graphs",
    "foo=[": "foo=[: this cannot be read",
    "seed=interval(1,1)": "one value is a whole number, from 0 to",
    "-m seed=interval(1,1)": "seed=interval(1,1): values of an interval are drawn by a search",
    "-m optimizer.lr=interval(1,2),3": "one sweep stands inside another; optimizer.lr takes a num",
    "hydra.sweeper.params.seed=range(2,2)": "leave hydra.sweeper.params. out; -m (--multirun) and",
    "-m hydra.sweeper.params.seed=range(2,4)": "leave hydra.sweeper.params. out; -m (--multirun)",
    "-m hydra.sweeper.params.seed='range(2,2)'": "leave hydra.sweeper.params. out; -m (--multi",
    "hydra.sweeper.params.seed='1,2'": "leave hydra.sweeper.params. out; -m (--multirun) and seed=",
    "name=a=b": "two pairs of quotes",
    "optimizer=adamw,muon": "add --multirun",
    "track.notes=${oc.env:WANDB_API_KEY}": "WANDB_API_KEY would be written into the run's files",
    "track.notes=${oc.env:HF_TOKEN,none}": "HF_TOKEN would be written",
    "track.notes=${oc.env:NO_SUCH_VARIABLE_HERE}": "NO_SUCH_VARIABLE_HERE",
    "model.n_layer=1000000000": "must be from 1 to 1024",
    "model.n_embd=1000000": "must be from 1 to 65536",
    "train.steps=1" + "0" * 400: "train.steps",
    "optimizer.lr=1e400": "optimizer.lr=inf: must be at least 0",
    "model.builds=os:system": "unknown setting model.builds",
    "model=../../../etc/passwd": "../../../etc/passwd",
    "seed=0,1": "add --multirun",
    "+corpus._target_=os.system": "unknown setting corpus._target_",
    "track.notes='\udcff'": "track.notes='\\udcff': this is not UTF-8",  # the byte 0xff in a shell
    "+model.builds=os:system": "unknown setting model.builds",
    "-m seed=range(5,5)": "seed=range(5,5) gives no value, so nothing would run",
    "-m seed=choice()": "seed=choice(): empty choice is not legal",
    "-m train.steps=2 seed=sort()": "seed=sort(): empty sort input",
    "-m hydra.sweeper.params={seed:1}": "hydra.sweeper.params={seed:1}",  # Hydra 1.4 says why
    "hydra.sweeper.params={seed:1}": "hydra.sweeper.params={seed:1}",
    "-m schedule=glob(x*)": "schedule=glob(x*) gives no value, so nothing would run: it matches no",
    "-m seed=0,1 +train.log_every=shuffle(range(3,1))": "log_every=shuffle(range(3,1)) gives no va",
    "-m seed=range(0.0,1.0,0.0)": "seed=range(0.0,1.0,0.0): a step of 0 never ends",
    "-m seed=range(0,1000000000)": "a grid has at most 10,000 arms",
    "-m seed=0,1 hydra.sweeper.max_batch_size=0": "max_batch_size=0: must be at least 1",
    "-m hydra/sweeper=lm train.log_every=range(5,5)": "log_every=range(5,5) gives no value",
    "-m hydra/sweeper=lm optimizer.lr=interval(5,1)": "optimizer.lr=interval(5,1): `low <= high`",
    "-m hydra/sweeper=lm hydra.sweeper.n_trials=0 seed=1": "n_trials=0: must be at least 1",
    "-m hydra/sweeper=lm hydra.sweeper.n_jobs=x seed=1": "hydra.sweeper.n_jobs: Value 'x'",
}


@pytest.mark.parametrize("word", BAD)
def test_a_mistake_is_named_in_one_line_and_makes_nothing(word, tmp_path):
    with pytest.raises(ConfigError) as caught:
        preflight.check(word.split())
    assert BAD[word] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


JOBS = [
    "optimizer.lr=0.01 seed=1",
    "optimizer.lr=0.02 seed=2 name=1e5",
    "model=gru model.n_layer=3 seed=1",
    "model=gru model.n_layer=2 track.notes=${model.name}",
    "experiment=001_model_ladder model=bigram seed=3 corpus=shakespeare train.log_every=7",
    "corpus=mix corpus.parts.a.path=README.md corpus.weights.a=1.0",
    "arm=010_default_run/adamw_cosine seed=4",
    "++train.log_every=7 ++seed=3",
    "train.prompts=[a,b] train.also=[shakespeare]",
    "train.tokens=20x train.batch_size=auto",
    "optimizer=adamw optimizer.lr=0.01 ~arm",
]
WRONG = [word for word in BAD if not {"-m", "--steps", "seed"} & set(word.split())]


def composed(compose_all):
    """The Config or the error of each job."""
    found = []
    for words in [*JOBS, *WRONG[::20]]:
        try:
            found += compose_all([as_typed(words.split()), as_typed([*words.split(), "seed=5"])])
        except Exception as error:  # Hydra has several kinds
            found.append(f"{type(error)}: {error}")
    return found


@pytest.mark.slow
def test_jobs_that_are_composed_once_are_those_that_hydra_composes_one_by_one(monkeypatch):
    compose.register()
    with compose.composing():
        one_by_one = composed(lambda jobs: [compose.compose_job(job, []) for job in jobs])
        assert composed(lambda jobs: compose.compose_jobs(jobs, [])) == one_by_one
        assert sum(isinstance(job, Config) for job in one_by_one) >= 2 * len(JOBS)
        n_composed = []
        whole = compose.compose_whole
        monkeypatch.setattr(
            compose, "compose_whole", lambda *args: n_composed.append(args) or whole(*args)
        )
        jobs = [["model=gru", f"optimizer.lr={i / 100}", f"seed={i}"] for i in range(20)]
        assert [job.seed for job in compose.compose_jobs(jobs, [])] == list(range(20))
        assert len(n_composed) == 1


# Words, and what is said of them.
HYDRA = {
    "hydra.job.chdir=true": "paths are read from where the command starts",
    "hydra.output_subdir=../x": "hydra.output_subdir=../x: leave it out",
    "hydra.output_subdir=/tmp/x": "hydra.output_subdir=/tmp/x: leave it out",
    "hydra.output_subdir=checkpoints": "lm writes .hydra in the run",
    "hydra.verbose=nope": "hydra.verbose=nope: give true, false, or modules that log",
    "hydra.verbose=[lm,lm.nope]": "hydra.verbose=lm.nope: give true, false, or modules",
    "hydra.verbose=null": "hydra.verbose=None: give true, false, or modules",
    "hydra.verbose=5": "hydra.verbose=5: give true, false, or modules",
    "hydra.verbose={a:1}": "give true, false, or modules",
    "hydra.mode=MULTIRUN": "leave it out; -m makes a sweep",
    "hydra.run.dir=": "hydra.run.dir is empty",
    "hydra.foo=1": "Key 'foo' not in 'HydraConf'",
    "hydra/launcher=nope": "Could not find 'hydra/launcher/nope'",
    "--config-dir nowhere": "--config-dir nowhere: there is no such folder",
    "-cp nowhere": "--config-path nowhere: give a folder by its absolute path",
    "-cn x": "Cannot find primary config 'x'",
    "--cfg job modle=gru": "did you mean model?",
    "--cfg nope": "invalid choice: 'nope'",
    "--cfg job --package nope": "--package nope: there is no such part",
    "--package model": "--resolve and --package go with --cfg job",
    "--resolve": "--resolve and --package go with --cfg job",
    "--info nope": "invalid choice: 'nope'",
    "--info all --cfg job": "give one of them",
    "-r -m": "give one of them",
    "--experimental-rerun x": "would run what that file holds",
    "-v": "-v is no option",
}


@pytest.mark.parametrize("words", HYDRA)
def test_an_option_of_hydras_without_use_is_refused_in_one_line(words, tmp_path):
    """Pages of Hydra's own, with exit code 1, or a run in another directory."""
    with pytest.raises(ConfigError) as caught:
        preflight.check(words.split())
    assert HYDRA[words] in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", ["--hydra-help", "--info config", "--cfg job --resolve", "-r", "hydra.verbose=[lm]"]
)
def test_an_option_of_hydras_that_works_is_let_through(words):
    preflight.check(words.split())


def test_a_typo_in_a_preset_of_one_s_own_is_named(tmp_path):
    (tmp_path / "my/model").mkdir(parents=True)
    text = "defaults: [{/schema/model@_here_: gru}, _self_]\nn_hiden: 3\n"
    (tmp_path / "my/model/mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match="n_hiden") as caught:
        preflight.check(["--config-dir", "my", "model=mine"])
    assert "\n" not in str(caught.value)


def test_a_model_of_one_s_own_without_import_is_told_what_is_missing(tmp_path):
    (tmp_path / "my/model").mkdir(parents=True)
    (tmp_path / "my/model/average.yaml").write_text(
        "defaults: [{/schema/model@_here_: average}, _self_]\n"
    )
    with pytest.raises(ConfigError, match="a model of your own takes import=MODULE too"):
        preflight.check(["--config-dir", "my", "model=average"])


@pytest.mark.parametrize("nothing", ["", "''"])
def test_an_empty_init_from_leaves_the_model_free(nothing):
    preflight.check([f"init_from={nothing}", "model=gru"])


def test_one_run_of_an_experiment_needs_all_that_it_sweeps():
    preflight.check(["experiment=001_model_ladder", "model=gru", "seed=0", "corpus=grammar"])


def test_a_file_in_place_of_a_setting_is_told_how_to_be_trained_on(tmp_path):
    (tmp_path / "my.txt").touch()
    with pytest.raises(ConfigError, match=r"corpus=files corpus\.path=my\.txt"):
        preflight.check(["my.txt"])


@pytest.mark.slow
def test_a_mistake_in_one_arm_of_a_grid_is_told_before_any_arm_starts(command, tiny, tmp_path):
    done = command("lm.train", "-m", *tiny, "model=transformer,ngram", "model.n_layer=1")
    assert done.returncode == 2
    assert "unknown setting model.n_layer" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "outputs/sweeps").exists()


@pytest.mark.parametrize(
    ("words", "differ"),
    [
        (
            "seed=0,1,2 optimizer.lr=1,2",
            "s/2 is an arm of another sweep: .*seed is 0 there and 2 here",
        ),
        ("seed=0,1 optimizer.lr=1,2 train.steps=9", "train.steps is 2000 there and 9 here"),
    ],
)
def test_a_sweep_s_directory_takes_no_other_sweep(words, differ, cfg, tmp_path):
    """Its arms have their place by their number: the results of one would stand for another's."""
    here = ("-m", "hydra.sweep.dir=s")
    for number, (lr, seed) in enumerate([(1, 0), (1, 1), (2, 0), (2, 1)]):
        (tmp_path / f"s/{number}").mkdir(parents=True)
        made = cfg(f"seed={seed}", f"optimizer.lr={lr}")
        config.save(made, tmp_path / f"s/{number}" / config.RESOLVED)
    preflight.check([*here, "optimizer.lr=1,2", "seed=0,1"])
    with pytest.raises(ConfigError, match=differ):
        preflight.check([*here, *reversed(words.split())])


def test_a_grid_is_refused_in_the_directory_of_a_search(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / study.STUDY).write_text("{}")
    with pytest.raises(ConfigError, match="s holds a search, which hydra/sweeper=lm"):
        preflight.check(["-m", "hydra.sweep.dir=s", "seed=0,1"])


ONE = "is the directory of arms 0 and 1: a name that differs holds"
SUBDIRS = {  # hydra.sweep.subdir -> what is wrong with it
    "x": ONE,
    "${model.name}": ONE,
    "..": "the sweep itself is there",
    "${nothing}": "Interpolation key 'nothing' not found",
    "${hydra:job.num}": "",
    "/tmp/elsewhere/${seed}": "",
    "summary.json/${seed}": "summary.json/0: the sweep's own files are called so",
    ".arms/${seed}": ".arms/0: the sweep's own files are called so",
}


@pytest.mark.parametrize("subdir", SUBDIRS)
def test_no_two_arms_have_one_directory(subdir, monkeypatch):
    monkeypatch.setenv("LM_UID", "abcd")
    words = ["-m", "seed=0,1", f"hydra.sweep.subdir={subdir}"]
    if not SUBDIRS[subdir]:
        preflight.check(words)
        return
    with pytest.raises(ConfigError) as caught:
        preflight.check(words)
    assert SUBDIRS[subdir] in str(caught.value) and "\n" not in str(caught.value)


def test_an_arm_that_can_have_no_directory_is_told_before_the_sweep_begins(tmp_path):
    """It ended with the bare error of the system, after the sweep's directory was made."""
    Path("a.txt").touch()
    words = ["-m", "seed=0,1", "hydra.sweep.dir=s", "hydra.sweep.subdir=../a.txt/${seed}"]
    with pytest.raises(ConfigError, match=r"a\.txt \(Not a directory\): hydra\.sweep\.subdir="):
        preflight.check(words)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_arm_of_another_sweep_is_found_wherever_it_is(cfg, tmp_path):
    (tmp_path / "s/bigram/9").mkdir(parents=True)
    config.save(cfg("model=bigram", "seed=8"), tmp_path / "s/bigram/9" / config.RESOLVED)
    words = ["-m", "model=bigram", "hydra.sweep.subdir=${model.name}/${seed}", "hydra.sweep.dir=s"]
    with pytest.raises(ConfigError, match="s/bigram/9 is an arm of another sweep: seed is 8 there"):
        preflight.check([*words, "seed=0,9"])


@pytest.mark.parametrize("subdir", ["", "t_${hydra.job.num}"])
def test_a_search_is_refused_where_its_files_are_no_search_s(subdir, tmp_path):
    words = ["-m", "hydra/sweeper=lm", "optimizer.lr=interval(1e-3,1)", "hydra.sweep.dir=s"]
    words += [f"hydra.sweep.subdir={subdir}"] if subdir else []
    (tmp_path / "mine.csv").write_text("a,1")
    for storage, message in (
        (tmp_path / "mine.csv", "is not the journal of a search"),
        (tmp_path / "nowhere/x", "nowhere/x: there is no folder .*nowhere"),
    ):
        with pytest.raises(ValueError, match=message):
            preflight.check([*words, f"hydra.sweeper.storage={storage}"])
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / study.STUDY).write_text("{")
    with pytest.raises(ValueError, match=r"s/study\.json cannot be read"):
        preflight.check(words)
    assert (tmp_path / "mine.csv").read_text() == "a,1" and not (tmp_path / "outputs").exists()
