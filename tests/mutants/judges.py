"""Which tests judge the mutants of which files: few and fast ones, so that a mutant costs little.

Files with the same judges are tried in one run of mutmut, and each mutant is judged by those of
the tests that call its function.
"""

CONTRACT = "tests/models/test_contract.py"
BPE_TRAIN = "tests/tokenizers/test_bpe_train.py"
JUDGES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("lm/metrics.py", "lm/record/guard.py", "lm/optim/schedule.py"): (
        "tests/test_metrics.py",
        "tests/record/test_guard.py",
        "tests/optim/test_schedule.py",
    ),
    ("lm/data/batches.py", "lm/scoring.py"): (
        "tests/data/test_batches.py",
        "tests/test_scoring.py",
        "tests/corpora/test_pairs.py",
        "tests/system/test_parts.py::test_an_evaluation_is_the_same_whoever_makes_which_pass",
    ),
    ("lm/optim/muon.py", "lm/optim/groups.py"): (
        "tests/optim/test_muon.py",
        "tests/optim/test_groups.py",
        "tests/models/test_parametrization.py",
    ),
    ("lm/models/counts.py", "lm/models/bigram_counts.py", "lm/models/ngram.py"): (
        "tests/models/test_counts.py",
        "tests/models/test_ngram.py",
        f"{CONTRACT}::test_a_window_above_the_context_is_refused_or_read_whole",
        f"{CONTRACT}::test_counted_probabilities_sum_to_1",
        f"{CONTRACT}::test_counting_costs_no_flops_and_training_some",
        f"{CONTRACT}::test_counts_of_very_short_texts_are_still_probabilities",
        f"{CONTRACT}::test_counts_read_a_memory_map_and_do_not_write_to_it",
        f"{CONTRACT}::test_counts_stay_on_the_device_of_their_model",
        f"{CONTRACT}::test_damaged_tables_are_refused_in_one_line",
        f"{CONTRACT}::test_state_dict_goes_into_a_new_model_and_brings_the_same_logits",
    ),
    ("lm/models/attention.py",): (
        "tests/models/test_attention.py",
        f"{CONTRACT}::test_steps_of_any_size_end_at_the_logits_of_forward",
        f"{CONTRACT}::test_steps_of_rows_with_different_lengths_end_at_the_logits_of_forward",
    ),
    ("lm/models/transformer.py",): (
        "tests/models/test_transformer.py",
        CONTRACT,
    ),
    ("lm/update.py", "lm/optim/clip.py"): ("tests/test_update.py", "tests/optim/test_clip.py"),
    ("lm/loop.py",): ("tests/test_loop.py",),
    ("lm/generate.py",): ("tests/test_generate.py",),
    ("lm/evaluate.py",): ("tests/test_evaluate.py",),
    ("lm/record/checkpoint.py",): ("tests/record/test_checkpoint.py",),
    ("lm/report/paired.py", "lm/report/scaling.py", "lm/report/sequential.py"): (
        "tests/report/test_paired.py",
        "tests/report/test_scaling.py",
        "tests/report/test_sequential.py",
    ),
    ("lm/tokenizers/merge.py",): ("tests/tokenizers/test_merge.py",),
    ("lm/tokenizers/bpe_train.py",): (
        f"{BPE_TRAIN}::test_merges_of_weighted_words_are_those_of_the_words_repeated",
        f"{BPE_TRAIN}::test_there_may_be_more_pairs_than_65536",
        f"{BPE_TRAIN}::test_three_equal_letters_are_one_pair_and_a_letter",
        f"{BPE_TRAIN}::test_what_ends_a_chunk_belongs_to_no_pair",
        f"{BPE_TRAIN}::test_positions_take_32_bits_as_long_as_these_hold_them",
        f"{BPE_TRAIN}::test_first_pair_takes_the_lowest_ids_and_greatest_bytes_the_greatest_strings",
        f"{BPE_TRAIN}::test_greatest_bytes_puts_a_longer_string_above_its_prefix",
        f"{BPE_TRAIN}::test_counts_beyond_32_bits_do_not_overflow",
        f"{BPE_TRAIN}::test_counts_that_could_overflow_are_refused",
        f"{BPE_TRAIN}::test_chunks_of_one_byte_teach_nothing",
        f"{BPE_TRAIN}::test_a_tie_break_that_is_none_is_refused",
        f"{BPE_TRAIN}::test_progress_tells_every_64_merges_and_the_last",
        f"{BPE_TRAIN}::test_a_token_may_have_1024_bytes_and_no_more",
    ),
}
FILES = [path for group in JUDGES for path in group]
