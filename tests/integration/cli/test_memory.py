"""The memory of a host through the command line: swap areas, fragmentation, frames that fail."""

from __future__ import annotations

from typing import Any


def test_swap_areas_come_and_go(up: Any) -> None:
    """An area is made, listed first by its priority, checked, and taken out of use."""
    made = up.json("mmu", "swapon", "extra", "1MiB", "--priority", "3")
    assert (made["name"], made["slots"], made["state"]) == ("hosts/h1/swapAreas/extra", "256", "STATE_ACTIVE")
    assert [area["name"].rpartition("/")[2] for area in up.json("mmu", "swap")] == ["extra", "swap"]
    assert up.run("mmu", "swap").stdout.split()[:3] == ["AREA", "SIZE", "USED"]
    assert "0 corrupt" in up.run("mmu", "swap-check", "extra").stdout
    assert up.json("mmu", "swap-slots", "extra") == []
    assert up.json("mmu", "swapoff", "extra")["done"]
    assert "SWAP_AREA_UNKNOWN" in up.run("mmu", "swapoff", "extra", expect=1).stderr
    assert "DISK_UNKNOWN" in up.run("mmu", "swapon", "more", "1MiB", "--disk", "none", expect=1).stderr
    assert up.run("mmu", "swap").stdout.splitlines()[1].split()[-1] == "file"
    assert "SWAP_AREA_TOO_SMALL" in up.run("mmu", "swapon", "tiny", "4KiB", expect=1).stderr


def test_settings_of_swapping_are_shown_and_changed(up: Any) -> None:
    """Without an option the settings are shown; what is given is changed, and nothing else; what is wrong says so."""
    shown = up.run("mmu", "swap-settings").stdout
    assert shown.split()[0] == "SETTING" and "swappiness" in shown
    before = up.json("mmu", "swap-settings")
    changed = up.json("mmu", "swap-settings", "--swappiness", "10", "--readahead-pages", "16")
    assert (changed["swappiness"], changed["readahead_pages"]) == (10, 16)
    assert {**changed, "swappiness": 60, "readahead_pages": 8} == before
    assert "REQUEST_INVALID" in up.run("mmu", "swap-settings", "--swappiness", "201", expect=1).stderr
    assert up.json("mmu", "swap-settings", "--swappiness", "60", "--readahead-pages", "8") == before


def test_free_memory_is_compacted(up: Any) -> None:
    """Compaction says what it did; the table of fragmentation adds up; a frame goes out of use."""
    done = up.json("mmu", "compact", "1")
    assert int(done["free_huge_blocks"]) >= 1
    shown = up.json("mmu", "fragmentation")
    assert sum(int(count) << order for order, count in enumerate(shown["free_blocks"])) == int(shown["free_frames"])
    free = int(shown["free_frames"])
    assert "offline" in up.run("mmu", "offline", "0x7000").stdout.lower()
    assert int(up.json("mmu", "fragmentation")["offline_frames"]) == 1 and free > 1
    assert "in-use" in up.run("mmu", "offline", "0").stdout.lower().replace("_", "-").replace(" ", "-")


def test_policies_and_their_decisions(up: Any) -> None:
    """Policies are listed, one is chosen for the host, evictions tell its reason, the group its pressure."""
    names = [one["name"] for one in up.json("mmu", "policies")]
    assert names == sorted(names) and {"lru", "arc", "opt"} <= set(names)
    assert up.run("mmu", "policies").stdout.split()[:2] == ["POLICY", "ORIGIN"]
    assert up.json("mmu", "policy", "root", "clock")["policy"] == "clock"
    assert "POLICY_OFFLINE" in up.run("mmu", "policy", "root", "opt", expect=1).stderr
    assert isinstance(up.json("mmu", "candidates", "--count", "5"), list)
    assert isinstance(up.json("mmu", "evictions", "--group", "root"), list)
    assert "pressure: some of 10, 60, 300 s" in up.run("mmu", "group", "root").stdout
    assert up.json("mmu", "group", "root")["name"] == "hosts/h1/memoryGroups/root"
    up.json("mmu", "policy", "root", "")


def test_groups_are_made_watched_and_removed(up: Any) -> None:
    """A group has the parent and the limit that were asked for; what happened to groups is told; only empty ones go."""
    up.json("mmu", "make-group", "outer")
    made = up.json("mmu", "make-group", "inner", "--parent", "outer", "--max", "8MiB")
    assert (made["parent"], made["max_bytes"]) == ("hosts/h1/memoryGroups/outer", str(8 << 20))
    assert "GROUP_EXISTS" in up.run("mmu", "make-group", "inner", expect=1).stderr
    assert "GROUP_IN_USE" in up.run("mmu", "remove-group", "outer", expect=1).stderr
    assert "EVENTS_FORGOTTEN" in up.run("mmu", "group-events", "inner", "--after", "999999", expect=1).stderr
    for name in ("inner", "outer"):
        assert f"memoryGroups/{name}" in up.run("mmu", "remove-group", name).stdout
    assert up.run("mmu", "group-events", "inner", expect=1).stderr.count("GROUP_UNKNOWN") == 1


def test_only_the_kernels_processes_are_attached_to(up: Any) -> None:
    """A stack of the model has none: it says so, with what to do instead."""
    refused = up.run("mmu", "attach", "1", "--label", "init", expect=1).stderr
    assert "PROCESS_NOT_SUPPORTED" in refused and "engine linux" in refused
    assert up.run("mmu", "attach", "many", expect=2).stderr
