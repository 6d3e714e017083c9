"""Breaking things on purpose through the command line."""

from __future__ import annotations

from typing import Any

KINDS = {
    ("hardware", "bit-flip"),
    ("hardware", "core-lost"),
    ("hardware", "device-failed"),
    ("hardware", "device-removed"),
    ("hardware", "disk-error"),
    ("hardware", "disk-failed"),
    ("hardware", "disk-full"),
    ("hardware", "disk-read-only"),
    ("hardware", "dma-fault"),
    ("hardware", "link-flap"),
    ("hardware", "memory-corrected"),
    ("hardware", "memory-failed"),
    ("hardware", "torn-write"),
    ("mmu", "swap-area-full"),
    ("mmu", "swap-area-io-error"),
    ("mmu", "swap-full"),
    ("mmu", "swap-io-error"),
    ("vswitch", "frame-loss"),
    ("vswitch", "link-down"),
    ("vswitch", "port-flap"),
    ("hypervisor", "vm-crash"),
    ("container-runtime", "container-kill"),
    ("orchestrator", "node-lost"),
}


def test_every_layer_says_what_can_break(own: Any) -> None:
    """`kinds` lists all kinds with objects and parameters, of one layer or of all, as a table and as JSON."""
    listed = own.json("fault", "kinds")
    assert {(row["layer"], row["kind"]["kind"]) for row in listed} == KINDS
    assert all(row["kind"]["description"] and row["kind"]["object_pattern"] for row in listed)
    table = own.run("fault", "kinds", "vswitch").stdout
    assert table.splitlines()[0].split() == ["LAYER", "KIND", "OBJECT", "PARAMETERS", "LASTS"]
    assert "down_ns=1000000..3600000000000 [100000000]" in table and "core-lost" not in table


def test_a_fault_is_injected_listed_and_cleared(own: Any) -> None:
    """Each step shows the fault as it is then; the object may be named without its host, the fault by its last part."""
    made = own.json("fault", "inject", "hardware", "core-lost", "cores/1")
    assert (made["object"], made["state"]) == ("hosts/h1/cores/1", "STATE_ACTIVE")
    name = made["name"].rpartition("/")[2]
    (row,) = own.json("fault", "list", "--active")
    assert (row["layer"], row["fault"]["name"]) == ("hardware", made["name"])
    table = own.run("fault", "list", "hardware").stdout.splitlines()
    assert table[0].split()[:5] == ["LAYER", "FAULT", "KIND", "OBJECT", "STATE"]
    assert [word in table[1] for word in (name, "core-lost", "hosts/h1/cores/1")] == [True] * 3
    assert "FAULT_ACTIVE" in own.run("fault", "inject", "hardware", "core-lost", "cores/1", expect=1).stderr
    assert own.json("fault", "clear", "hardware", name)["state"] == "STATE_CLEARED"
    assert own.json("fault", "list", "--active") == []
    assert own.json("fault", "list", "hardware")[0]["fault"]["state"] == "STATE_CLEARED"


def test_a_fault_ends_by_its_time_and_one_that_does_not_last_is_done(own: Any) -> None:
    """`--for` gives the end; a flipped bit has happened, and cannot be cleared."""
    made = own.json("fault", "inject", "mmu", "swap-full", "swap", "--for", "2h")
    assert int(made["end_time_ns"]) - int(made["start_time_ns"]) == 2 * 3600 * 10**9
    flipped = own.json("fault", "inject", "hardware", "bit-flip", "", "address=0x3fff", "bit=7")
    assert flipped["state"] == "STATE_DONE"
    assert "FAULT_NOT_CLEARABLE" in own.run("fault", "clear", "hardware", flipped["name"], expect=1).stderr


def test_what_cannot_break_is_refused(own: Any) -> None:
    """Unknown kinds, objects, parameters and faults end with a reason and what to do; times are checked at once."""
    for words, reason in (
        (("inject", "hardware", "rust", "cores/0"), "FAULT_KIND_UNKNOWN"),
        (("inject", "hardware", "core-lost", "cores/99"), "CORE_UNKNOWN"),
        (("inject", "hardware", "bit-flip", "", "address=0x10", "bit=9"), "FAULT_INVALID"),
        (("inject", "vswitch", "link-down", "switches/none/ports/p"), "UNKNOWN"),
        (("inject", "hypervisor", "vm-crash", "vms/nobody"), "VM_"),
        (("inject", "orchestrator", "node-lost", "nodes/h9"), "NODE_UNKNOWN"),
        (("clear", "mmu", "f-00000000"), "FAULT_UNKNOWN"),
    ):
        assert reason in own.run("fault", *words, expect=1).stderr
    own.run("fault", "inject", "mmu", "swap-full", "swap", "--for", "soon", expect=2)
