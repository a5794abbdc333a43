"""Every fault that docs/en/explanation/faults.md describes is produced by a test, named here."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The first cell of a row of docs/en/explanation/faults.md, and the tests that produce that fault.
FAULTS: dict[str, tuple[str, ...]] = {
    "a computation raises an exception": (
        "test_computation_that_raises_is_a_500_and_the_lane_goes_on",
        "test_failed_batch_answers_every_waiter_and_the_lane_lives_on",
    ),
    "a computation never ends": (
        "test_request_whose_batch_hangs_is_answered_and_the_next_ones_are_served",
        "test_models_are_not_sound_while_a_lane_hangs",
        "test_supervisor_that_watches_hears_nothing_while_a_lane_hangs",
        "test_worker_with_a_lane_that_hangs_ends_and_comes_back",
    ),
    "more requests than can be answered": ("test_full_queue_is_429_with_a_time_to_retry",),
    "clients leave, also in the middle of a request": (
        "test_client_that_leaves_costs_nothing_more",
        "test_client_that_leaves_while_it_waits_is_abandoned",
        "test_client_that_leaves_while_it_sends_gets_nothing",
    ),
    "a body stops coming": ("test_body_that_never_ends_is_refused_and_its_connection_closed",),
    "many large bodies at once": (
        "test_large_bodies_have_a_bound_together_and_small_ones_none",
        "test_failed_and_refused_requests_give_their_memory_back",
    ),
    "one client asks for what costs much": (
        "test_health_is_answered_beside_each_attack",
        "test_a_plain_search_is_answered_beside_a_flood_of_filters",
        "test_many_small_values_are_too_many",
    ),
    "clients do not take their replies": (
        "test_replies_that_are_not_taken_have_a_bound",
        "test_replies_that_clients_do_not_take_have_a_bound",
        "test_a_reply_has_a_least_rate",
    ),
    "no memory for a request": ("test_request_that_finds_no_memory_fails_alone",),
    "the kernel ends the process for lack of memory": (
        "test_process_that_the_kernel_ends_for_its_memory_has_lost_nothing",
    ),
    "the disk refuses to read (EIO)": (
        "test_disk_that_refuses_to_read_is_named_and_its_documents_are_there_later",
        "test_a_disk_that_refuses_to_read_is_not_called_damage",
    ),
    "the disk is full": (
        "test_full_disk_refuses_writes_and_keeps_what_is_stored",
        "test_a_full_disk_is_reported_and_stores_nothing",
        "test_full_disk_ends_the_run_frees_its_space_and_leaves_the_collection",
        "test_full_disk_loses_lines_counts_them_and_says_so_once",
    ),
    "the disk fails while a collection is replaced or removed": (
        "test_disk_that_fails_at_any_step_leaves_the_collection_whole_and_open",
        "test_collection_whose_replacement_fails_serves_on_and_the_next_run_is_short",
        "test_collection_whose_removal_fails_is_served_written_and_compacted_as_before",
    ),
    "no file descriptor is left": (
        "test_without_descriptors_open_connections_are_served_and_closed_ones_make_room",
    ),
    "no file descriptor is left to the first process of `--workers`": (
        "test_server_with_too_many_open_files_says_that_it_lives_and_reads_its_settings",
        "test_worker_that_cannot_be_started_is_tried_again",
    ),
    "`kill -9` of the process": (
        "test_killed_server_loses_nothing_it_has_acknowledged",
        "test_two_hundred_kills_lose_nothing",
        "test_nothing_acknowledged_is_lost_by_kill_9",
        "test_nothing_acknowledged_is_lost_whatever_runs_when_the_server_is_killed",
        "test_every_answer_is_one_state_whatever_is_written_reindexed_and_killed",
    ),
    "`kill -9` while a collection is created, reindexed, restored or removed": (
        "test_every_answer_is_one_state_whatever_is_written_reindexed_and_killed",
        "test_kill_at_any_step_leaves_the_old_state_or_the_new_one",
        "test_kill_while_a_collection_is_created_leaves_none_or_an_empty_one",
        "test_kill_while_a_backup_is_restored_leaves_the_old_state_or_the_new_one",
        "test_kill_while_a_start_puts_a_collection_back_leaves_it_there",
    ),
    "the power fails at any moment": (
        "test_power_cut_at_any_moment_loses_nothing_acknowledged",
        "test_each_new_name_is_on_the_disk_before_the_next_step",
        "test_line_that_a_power_cut_has_torn_does_not_spoil_the_next",
    ),
    "the process is stopped and continued (SIGSTOP, SIGCONT)": (
        "test_stopped_server_answers_everything_when_it_goes_on",
    ),
    "a worker of `--workers` hangs or is stopped (SIGSTOP)": (
        "test_worker_whose_loop_hangs_is_replaced_and_keeps_no_reload_waiting",
        "test_worker_that_is_stopped_gets_no_more_connections_and_then_another_takes_its_place",
        "test_worker_that_is_stopped_does_not_keep_the_server_from_ending",
        "test_worker_that_does_not_come_back_from_reading_its_settings_is_killed",
        "test_processes_that_are_all_stopped_and_go_on_are_the_same_ones",
    ),
    "a worker of `--workers` is killed": (
        "test_killed_worker_comes_back_and_the_others_do_not_notice",
    ),
    "the first process of `--workers` is killed": (
        "test_killed_first_process_takes_all_with_it_and_loses_nothing_acknowledged",
    ),
    "a signal goes to all processes, as when a terminal is closed": (
        "test_signal_to_the_whole_group_reloads_once_and_ends_no_process",
        "test_signal_to_all_processes_finishes_what_each_has_accepted",
    ),
    "a stop is requested while requests are in progress": (
        "test_sigterm_finishes_a_long_request",
        "test_limit_ends_a_long_request_with_an_answer",
        "test_connections_and_lanes_have_one_time_to_finish",
    ),
    "the date jumps, by decades or back": (
        "test_date_that_jumps_changes_no_answer_and_nothing_stored",
    ),
    "a database is damaged": (
        "test_damage_of_any_file_is_noticed_and_removes_nothing",
        "test_server_with_a_damaged_file_serves_the_others_and_says_what_is_wrong",
        "test_damaged_database_and_its_log_are_not_changed",
        "test_a_damaged_database_is_reported_and_the_folder_let_go",
        "test_damaged_pages_are_reported",
        "test_a_vector_or_its_place_changed_behind_our_back_is_refused",
    ),
    "a database is empty, missing, of an unknown version or in a renamed folder": (
        "test_one_damaged_collection_keeps_no_other_from_being_served_and_is_not_changed",
        "test_folder_under_another_name_is_reported_until_it_is_renamed_back",
    ),
    "the log of a database is damaged or lost": (
        "test_damage_of_any_file_is_noticed_and_removes_nothing",
    ),
    "another program puts a trigger, view, table or index into a database": (
        "test_foreign_objects_are_found_and_keep_the_collection_closed",
        "test_triggers_in_a_file_of_version_1_do_not_run",
    ),
    "the rows that filters read are changed": (
        "test_rows_that_filters_read_show_no_tenant_the_documents_of_another",
        "test_rows_that_filters_read_are_compared_with_metadata",
    ),
    "the index of words is changed": ("test_index_of_words_is_compared_with_the_texts",),
    "a snapshot of the index is damaged, old or of another database": (
        "test_a_snapshot_of_no_use_is_rebuilt",
        "test_a_snapshot_with_a_wrong_byte_anywhere_is_detected",
        "test_a_snapshot_newer_than_a_restored_database_is_rebuilt",
    ),
    "the keys file is damaged": (
        "test_damage_of_any_file_is_noticed_and_removes_nothing",
        "test_bad_line_is_refused_by_its_number_and_not_repeated",
    ),
    "the keys file is emptied": ("test_server_with_an_empty_keys_file_gives_no_client_access",),
    "the model's files are damaged": ("test_damaged_model_refuses_to_start",),
    "a model from elsewhere has a tokenizer that could hold the server with one text": (
        "test_artifact_whose_tokenizer_has_no_bound_is_refused",
    ),
    "the network is gone": (
        "test_tests_of_the_server_pass_without_a_network",
        "test_shipped_model_indexes_and_finds_without_a_network",
    ),
    "the vector database is away, or hangs": (
        "test_database_that_was_away_gets_every_write_in_order",
        "test_database_that_hangs_takes_no_more_than_its_threads",
        "test_nothing_is_lost_of_what_is_written_while_the_database_is_away_for_a_minute",
        "test_an_answer_has_a_time_as_a_whole_and_not_only_each_of_its_bytes",
    ),
    "it is busy with a collection, or has no room": (
        "test_collection_that_the_database_is_busy_with_leaves_the_others_alone",
    ),
    "it comes back": ("test_database_that_comes_back_is_found_again",),
    "the server or the database is killed with writes on their way": (
        "test_nothing_acknowledged_is_lost_whoever_is_killed",
        "test_no_acknowledged_write_is_lost",
        "test_write_that_was_taken_and_not_removed_is_sent_again",
    ),
    "the outbox is full": ("test_full_outbox_refuses_more",),
    "it refuses a write, or a waiting write is damaged on the disk": (
        "test_refused_write_stops_its_followers_until_it_is_set_aside",
        "test_damaged_write_stops_its_followers_until_it_is_set_aside",
    ),
    "it can no longer search by words": ("test_hybrid_search_says_that_words_are_missing",),
    "its collection is gone, or of another model": (
        "test_collection_that_was_dropped_elsewhere_is_said_to_be_gone",
        "test_collection_of_another_model_is_refused",
    ),
}
# The heading behind the rows of faults.
FIGURES = {"en": "## Figures\n", "zh": "## 测量结果\n"}
# What docs/en/explanation/egress.md says of the server in a network namespace.
EGRESS = ("test_namespace_leads_nowhere", *FAULTS["the network is gone"])


def defined_in(pattern: str) -> set[str]:
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob(pattern)]
    return set(re.findall(r"def (test_\w+)\(", "\n".join(sources)))


def documented(language: str) -> list[list[str]]:
    """Return the cells of every row that describes a fault: the tables of three columns before the figures."""
    text = (ROOT / f"docs/{language}/explanation/faults.md").read_text(encoding="utf-8")
    faults = text[: text.index(FIGURES[language])]
    tables = re.findall(r"^\|.*\n\|[-|]+\|\n((?:\|.*\n)+)", faults, re.M)
    lines = "".join(tables).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_documented_fault_has_tests_and_every_row_is_whole() -> None:
    assert [cells[0] for cells in documented("en")] == list(FAULTS)
    assert all(len(cells) == 3 and all(cells) for cells in documented("en"))


def test_the_chinese_page_has_the_same_faults_in_the_same_order() -> None:
    def named(cells: list[str]) -> list[set[str]]:
        """Return what both languages write alike in each cell: statuses, codes, flags and signals."""
        return [set(re.findall(r"`[^`]+`|\b[45]\d\d\b|SIG[A-Z]+", cell)) for cell in cells]

    english, chinese = documented("en"), documented("zh")
    assert all(len(cells) == 3 and all(cells) for cells in chinese)
    assert [named(cells) for cells in chinese] == [named(cells) for cells in english]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_test_that_the_faults_name_exists_and_every_fault_names_one(fault: str) -> None:
    assert FAULTS[fault] and set(FAULTS[fault]) <= defined_in("tests/**/test_*.py")


def test_every_test_of_tests_stress_stands_behind_a_document() -> None:
    named = {name for names in (*FAULTS.values(), EGRESS) for name in names}
    assert defined_in("tests/stress/test_*.py") <= named


def test_documents_name_no_tests() -> None:
    for path in ROOT.glob("docs/**/*.md"):
        assert not re.search(r"\btest_\w+|tests/\w", path.read_text(encoding="utf-8")), path.name
