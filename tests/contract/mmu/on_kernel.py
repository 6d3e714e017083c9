"""Which tests of the contract run on engines that work on the kernel's memory, beside the model.

The others look into RAM that the stack has made, count its frames and its slots, or are of what such an engine refuses
(`test_kernel_refusals.py` tests that it does). So are those that have pages go at once: the kernel keeps some for a
while in lists of its processors, where nobody reclaims them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.contract.mmu.stack import Stack

ON_KERNEL: dict[str, tuple[str, ...]] = {
    "test_advice": (
        "test_a_fork_leaves_out_or_wipes_what_it_was_told_to",
        "test_what_is_not_needed_reads_as_zero",
        "test_what_is_shared_stays_with_its_object",
    ),
    "test_content": (
        "test_bad_ranges_are_refused",
        "test_content_is_read_in_pieces",
    ),
    "test_faults": (
        "test_a_forced_write_changes_only_the_spaces_own_copy",
        "test_a_repeated_fault_is_spurious",
        "test_an_access_must_be_given",
        "test_an_address_without_a_mapping_is_a_segmentation_fault",
        "test_forks_of_forks_see_their_own_past",
        "test_reading_beyond_a_mapping_names_the_first_bad_address",
        "test_two_faults_on_one_page_get_one_frame",
    ),
    "test_group_watch": (
        "test_a_watch_ends_with_its_group",
        "test_bad_watches_are_refused",
    ),
    "test_groups": (
        "test_a_request_id_makes_one_group",
        "test_bad_groups_are_refused",
        "test_groups_are_listed_with_the_root_first",
        "test_only_empty_groups_are_deleted",
    ),
    "test_heap_and_remap": (
        "test_a_heap_that_cannot_move_stays",
        "test_a_mapping_grows_where_it_is_when_it_can",
        "test_the_heap_grows_and_shrinks_by_bytes",
        "test_unmapping_and_protecting_happen_once_for_a_request",
    ),
    "test_huge_pages": (
        "test_huge_pages_come_where_they_are_asked_for",
        "test_rights_of_a_whole_huge_page_change_without_a_split",
        "test_what_changes_a_part_splits_the_page",
    ),
    "test_locks_and_pins": (
        "test_a_page_is_locked_as_long_as_anybody_locks_it",
        "test_future_mappings_are_locked_when_the_space_says_so",
    ),
    "test_mappings": (
        "test_a_fixed_range_in_use_needs_replace",
        "test_a_full_address_space_says_so",
        "test_a_gap_that_fits_is_used",
        "test_a_hint_is_taken_when_free_and_passed_over_when_not",
        "test_a_request_id_maps_once",
        "test_a_stack_grows_down_to_its_limit",
        "test_a_stack_keeps_its_guard_gap",
        "test_bad_ranges_are_refused",
        "test_mappings_are_listed_in_pages",
        "test_no_rights_keep_the_page",
        "test_protecting_a_hole_is_refused",
    ),
    "test_objects": (
        "test_a_write_to_a_private_mapping_copies",
        "test_bad_objects_are_refused",
        "test_content_is_written_in_pieces",
        "test_objects_are_listed_and_made_once",
    ),
    "test_protection": ("test_unknown_paths_and_groups_are_refused",),
    "test_space_accounts": (
        "test_residency_of_a_large_range_comes_in_pieces",
        "test_wrong_settings_name_their_field",
    ),
    "test_spaces": (
        "test_a_deleted_space_is_gone_and_its_slot_is_reused_under_a_new_generation",
        "test_a_foreign_page_token_is_refused",
        "test_a_fork_with_a_request_id_is_made_once",
        "test_a_request_id_makes_one_space",
        "test_a_space_is_found_by_handle_and_by_name",
        "test_bad_fields_of_a_new_space_are_refused",
        "test_lists_are_paged_in_the_order_of_creation",
        "test_wrong_names_and_handles_are_refused",
    ),
    "test_sync_range": ("test_memory_that_nobody_supplies_has_nothing_to_keep",),
}
"""Tests by module."""

NEEDS_GROUPS = frozenset(
    {
        "test_a_request_id_makes_one_group",
        "test_a_watch_ends_with_its_group",
        "test_bad_fields_of_a_new_space_are_refused",
        "test_bad_groups_are_refused",
        "test_groups_are_listed_with_the_root_first",
        "test_only_empty_groups_are_deleted",
        "test_unknown_paths_and_groups_are_refused",
        "test_what_cannot_be_attached_to_is_refused",
        "test_wrong_settings_name_their_field",
    }
)
"""Tests that make or name a memory group; where the kernel lets us make none, all of them are refused alike."""

NEEDS_PAGING = frozenset(
    {
        "test_a_page_is_locked_as_long_as_anybody_locks_it",
        "test_an_attached_process_is_read_written_and_left_alone",
        "test_reclaim_goes_in_small_steps",
        "test_what_is_not_needed_reads_as_zero",
    }
)
"""Tests that page out, which the kernel lets do with another process who has CAP_SYS_NICE."""

_CAP_SYS_NICE = 23


def may_page_out() -> bool:
    """Returns whether this process may page out another one, as processes that it starts may."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_NICE & 1)


def skip_what_cannot_run(test: str, stack: Stack) -> None:
    """Skips a test of the engine on the kernel that wants more than this user may."""
    if test in NEEDS_GROUPS and not stack.service.host.engine.kernel_groups.cgroups.version:
        pytest.skip("no memory controller")
    if test in NEEDS_PAGING and not may_page_out():
        pytest.skip("paging out needs root")


ZERO_PAGE = "Linux maps its page of zeros for a read, which counts nowhere; the model takes a frame"
DIFFERS: dict[str, str] = {
    "test_unmapping_splits_and_neighbours_merge_again": ZERO_PAGE,
    "test_populating_faults_pages_in": ZERO_PAGE,
    "test_beyond_the_objects_end_is_refused": "Linux answers beyond an object with SIGBUS, the model with SIGSEGV",
    "test_random_ranges_are_not_faulted_around": "Linux faults around in ranges advised RANDOM too",
    "test_cold_pages_go_first": "Linux does not tell how many pages went to the cold end",
    "test_chosen_addresses_go_down_from_the_top": "Linux begins below a random gap under the stack's limit",
    "test_statistics_count_as_smaps_and_getrusage_do": "Linux does not tell how many pages were faulted around",
}
"""Tests that run on them and must fail, and why: rows of docs/divergences.md."""
