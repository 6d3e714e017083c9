"""Examples of `lamina hardware`, below the help of each verb; `tests/unit/cli/test_examples.py` reads them all."""

from __future__ import annotations

EXAMPLES = {
    "host": ("host",),
    "cores": ("cores", "cores -o json"),
    "contexts": ("contexts",),
    "groups": ("groups",),
    "time": ("time",),
    "disks": ("disks",),
    "io-groups": ("io-groups",),
    "apics": ("apics",),
    "routes": ("routes hosts/h1/devices/dma0",),
    "registers": ("registers c-1",),
    "controls": ("controls c-1",),
    "read": ("read 0x1000", "read 0x1000 4KiB"),
    "translate": ("translate 0x1000 0x400000", "translate 0x1000 0x400000 --eptp 0x20000"),
    "devices": ("devices",),
    "domains": ("domains",),
    "dma-faults": ("dma-faults",),
    "dma-translate": ("dma-translate dma0 0x10000 --write",),
    "nics": ("nics",),
    "queues": ("queues nic0",),
    "wires": ("wires",),
    "create-wire": (
        "create-wire w1",
        "create-wire slow --rate 1000000 --delay 5ms --loss 1000",
        "create-wire lab --tap lab0",
    ),
    "delete-wire": ("delete-wire w1",),
    "connect": ("connect nic0 w1",),
    "disconnect": ("disconnect nic0",),
    "topology": ("topology",),
    "events": ("events", "events --follow"),
    "counters": ("counters", "counters --core 0", "counters --context c-1"),
    "costs": ("costs",),
    "tlb": ("tlb 0",),
    "walk": ("walk 0x1000 0x400000 0x403000", "walk 0x1000 0x400000 --access write --ring 3"),
}
"""Verb → commands as people type them."""
