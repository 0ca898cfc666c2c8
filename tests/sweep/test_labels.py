"""Short names tell the arms of a sweep apart by the settings in which they differ."""

from lm.sweep import labels

CASES = {  # words of the arms -> their labels
    (("model=gru", "seed=1"), ("model=gru", "seed=2")): ["seed=1", "seed=2"],
    (("seed=1", "model=gru"), ("seed=1", "model=mlp")): ["gru", "mlp"],
    (("seed=1", "optimizer.lr=0.003"), ("seed=2", "optimizer.lr=1e-05")): [
        "lr=0.003 seed=1",
        "lr=1e-05 seed=2",
    ],
    (("arm=004_x/muon", "hydra.a=1"), ("arm=004_x/adamw", "hydra.a=2")): ["muon", "adamw"],
    (("+corpus.path=a b.txt",), ("+corpus.path=c.txt",)): ["path=a b.txt", "path=c.txt"],
    (("model=gru",), ("model=mlp", "model.n_embd=8")): ["gru", "mlp n_embd=8"],
    (("track=off", "train.n_proc=1"), ("track=offline", "train.n_proc=2")): [
        "off n_proc=1",
        "offline n_proc=2",
    ],
    (("model=gru",),): [""],
    (("a=1",), ("a=1",)): ["", ""],
}


def test_an_arm_is_called_by_what_sets_it_apart_and_by_its_seed_last():
    for arms, expected in CASES.items():
        keys = labels.varied(arms)
        assert [labels.label(words, keys) for words in arms] == expected


NAMES = [  # words, the keys in which the arms of the sweep differ (None: no sweep), the name
    ([], None, "gru"),
    (["model=mlp", "optimizer.lr=0.003", "seed=1"], None, "mlp lr=0.003 seed=1"),
    (["seed=1", "track=off", "train.threads=1", "hydra.run.dir=x", "train.steps=9"], None,
     "gru steps=9 seed=1"),
    (["optimizer.lr=0.003", "train.steps=9", "seed=1"], ["optimizer.lr", "seed"],
     "gru lr=0.003 seed=1"),
    (["model=mlp", "seed=1"], ["model"], "mlp"),
    (["experiment=004_x", "+arm=004_x/muon", "seed=1"], ["arm", "seed"], "muon seed=1"),
]  # fmt: skip


def test_a_run_is_called_by_its_model_and_what_was_chosen_for_it():
    for words, keys, name in NAMES:
        assert labels.run_name(words, "gru", keys) == name
