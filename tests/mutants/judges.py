"""Which tests judge the mutants of a file: few and fast ones, so that a mutant costs little."""

JUDGES = {
    "lm/record/guard.py": ("tests/record/test_guard.py",),
    "lm/metrics.py": ("tests/test_metrics.py",),
    "lm/optim/schedule.py": ("tests/optim/test_schedule.py",),
    "lm/report/paired.py": ("tests/report/test_paired.py",),
    "lm/report/sequential.py": ("tests/report/test_sequential.py",),
    "lm/optim/muon.py": ("tests/optim/test_muon.py",),
    "lm/data/batches.py": ("tests/data/test_batches.py",),
    "lm/models/ngram.py": ("tests/models/test_ngram.py",),
    "lm/models/bigram_counts.py": ("tests/models/test_ngram.py", "tests/models/test_contract.py"),
    "lm/optim/groups.py": ("tests/optim/test_groups.py",),
    "lm/tokenizers/bpe_train.py": ("tests/tokenizers/test_bpe_train.py",),
    "lm/tokenizers/merge.py": ("tests/tokenizers/test_encode.py",),
    "lm/models/counts.py": ("tests/models/test_ngram.py",),
    "lm/report/scaling.py": ("tests/report/test_scaling.py",),
    "lm/scoring.py": ("tests/test_evaluate.py",),
    "lm/evaluate.py": ("tests/test_evaluate.py",),
    "lm/update.py": ("tests/test_update.py",),
    "lm/models/transformer.py": (
        "tests/models/test_transformer.py",
        "tests/models/test_contract.py",
    ),
    "lm/models/attention.py": ("tests/models/test_attention.py", "tests/models/test_contract.py"),
    "lm/generate.py": ("tests/test_generate.py",),
    "lm/record/checkpoint.py": ("tests/record/test_checkpoint.py",),
    "lm/loop.py": ("tests/test_loop.py",),
}
