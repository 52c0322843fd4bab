"""Tests that continuous integration has no time for: further cases of laws that it tries, in processes of their own.

`bash hub_scripts/test.sh --every` runs them too.
"""

import re
from collections.abc import Iterable

SELDOM = (
    # further families and tasks, which tests/families tries in memory
    r"test_repos\.py::test_twin_gives_the_fine_tune_back_through_the_hub"
    r"\[(?!(vit|timm|bert|t5-gated|llama|llama response)\])",
    r"test_evaluate\.py::test_of_a_whole_model_it_is_the_ports_score\[(?!(bert|vit|t5|letters|together)\])",
    r"test_evaluate\.py::test_of_a_change_it_is_the_ports_score\[(tags|scored)-",
    r"test_align_families\.py::test_twins_are_aligned_without_a_fine_tune\[(?!(vit|bert|t5-gated|llama)\])",
    r"test_align\.py::test_so_it_is_by_every_method_and_matching\[(weighted|label-free|per class)\]",
    r"test_delta\.py::test_every_loader_gives_the_model_that_was_scored\[(?!(bert|llama|vit))",
    r"test_sound_ports\.py::test_a_port_to_a_twin_says_what_the_fine_tune_says\[(?!letters)",
    r"test_sight_ports\.py::test_a_twin_answers_as_the_fine_tune_does\[qwen2_vl\]",
    r"test_delta\.py::test_a_lora_stays_one_at_its_rank\[llama\]",
    r"test_forms\.py::test_a_lora_is_the_model_that_it_was_scored_as\[(bert-ft|gpt2-)",
    r"test_align\.py::test_a_port_over_maps_is_the_port_that_makes_its_own\[folder\]",
    r"test_unlabelled\.py::test_auto_chooses_with_them",
    r"test_auto_ports\.py::test_the_same_samples_give_the_same_port",
    r"test_formats\.py::test_an_answer_that_is_none_is_no_agent",
    r"test_formats\.py::test_auto_is_what_the_hubs_client_finds\[words[2-4]",
    r"test_results\.py::test_pixels_and_anchors_are_reproducible",
    r"test_results\.py::test_a_cell_is_a_port",
    r"test_zoo_next\.py::test_a_lora_and_both_versions_are_repos",
    r"test_compare\.py::test_every_method_has_a_row_unless_named",
    r"test_guards\.py::test_few_samples_and_one_class_say_nothing_of_chance\[drawn1\]",
    r"test_estimate_of_memory\.py::test_of_a_port_from_files_too\[more2\]",
    r"test_check\.py::test_a_check_is_read_by_people_and_its_next_command_runs",
    r"test_real\.py::test_the_whole_of_it_in_small",
    # of several processes, and of many ports
    r"test_ranks\.py::test_in_groups_of_layers_too",
    r"test_ranks\.py::test_a_launcher_starts_them",
    r"test_ranks\.py::test_what_one_of_them_refuses_ends_both_with_its_line",
    r"test_ranks\.py::test_one_that_is_killed_ends_the_other_with_one_line\[0\]",
    r"test_ranks\.py::test_one_that_is_killed_while_the_other_writes",
    r"test_ranks\.py::test_an_error_of_one_of_them_is_shown_once",
    r"test_fleet\.py::test_maps_are_made_once_for_a_pair_of_bases",
    r"test_fleet\.py::test_the_ledger_may_be_a_dataset_repo",
    r"test_fleet\.py::test_ports_may_be_pushed_alone",
    r"test_port_job\.py::test_a_job_is_submitted_and_its_port_is_pushed",
    r"test_docs\.py::test_the_code_of_a_page_runs"
    r"\[docs/(fleet|many_devices|paper_tables|guides/compare)\.md\]",
    r"test_fleet\.py::test_a_folder_of_somebody_else_is_left_alone",
    r"test_errors_of_data\.py::test_a_cached_dataset_does_not_stand_in",
    # further faults
    r"test_every_request\.py::test_a_fault_ends_right_or_in_one_line\[status (?!(401|404|429|500))",
    r"test_machine\.py::test_a_home_that_is_none\[(a file|no room)\]",
    r"test_kills\.py::test_a_port_that_is_stopped\[(SIGTERM-cold|SIGINT-cold)\]",
    r"test_machine\.py::test_a_disk_that_is_full_from_a_step_on\[cold\]",
    r"test_two_at_once\.py::test_on_one_folder\[cold\]",
    r"test_two_at_once\.py::test_on_one_repo\[cold\]",
    r"test_two_at_once\.py::test_with_one_cache\[(align-warm|port-cold)\]",
)
"""Patterns of their names."""


def is_seldom(name: str, patterns: Iterable[str] = SELDOM) -> bool:
    """Return whether a test, by the name that pytest gives it, is one of them."""
    return any(re.search(pattern, name) for pattern in patterns)
