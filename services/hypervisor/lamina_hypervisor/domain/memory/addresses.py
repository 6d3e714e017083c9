"""Three kinds of address, as three types: the checker refuses a mix-up.

    GVA ──guest's page tables──▶ GPA ──EPT──▶ HPA

A program in the guest uses guest virtual addresses. The guest's kernel turns them into guest physical ones and believes
that these are RAM. The hypervisor's EPT turns those into host physical ones, which are. Pure.
"""

from __future__ import annotations

from typing import NewType

from lamina_kit import paging

Gva = NewType("Gva", int)
"""Guest virtual address, 0 to 2^64 - 1."""

Gpa = NewType("Gpa", int)
"""Guest physical address, 0 to 2^48 - 1."""

Hpa = NewType("Hpa", int)
"""Host physical address: an offset in the host's RAM."""

Frame = NewType("Frame", int)
"""Number of a frame of host RAM: host physical address divided by 4096."""


def page_of(gpa: Gpa) -> Gpa:
    """Returns the start of the guest page that holds `gpa`."""
    return Gpa(paging.page_down(gpa))


def frame_address(frame: Frame) -> Hpa:
    """Returns the address of a frame's first byte."""
    return Hpa(frame << paging.PAGE_SHIFT)
