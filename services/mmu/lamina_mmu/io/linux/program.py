"""The agent's program: a static ELF file of two pages, made here, run by `processes.py`. `agent.S` is its source.

    0x10000  ELF header, two program headers, code         read, execute
    0x11000  command, reply, message header; its stack     read, write, five pages

It lies at the lowest address that the kernel gives out (vm.mmap_min_addr), so that all above is free for the space.
"""

from __future__ import annotations

import struct

from lamina_mmu.domain.kernel.port import AGENT_END, AGENT_START

BASE, END = AGENT_START, AGENT_END
DATA = BASE + 0x1000
HEADERS = 64 + 2 * 56
CAUGHT = BASE + HEADERS + 0x1A5
"""Where the handler of signals begins."""

CODE = bytes.fromhex(
    "bc0060010048c704250011010000000000c70425c010010000100100c70425c810010040000000c7042590100100c0100100"
    "c704259810010001000000c70425a010010000110100bc0060010048c70425a810010018000000c70425b010010000000000"
    "31ffbe80100100ba00000040b82f0000000f054883f8fc74cb4885c00f8e50010000488b0425001001004889042540100100"
    "48c70425501001000000000048c70425581001000000000048c70425601001000000000049c7c4ffffffff48833c25a81001"
    "000074084c63242510110100488b042508100100488b3c2510100100483d001000000f84a5000000483d011000000f849f00"
    "0000483d021000000f849b000000488b342518100100488b1425201001004c8b1425281001004c8b0425301001004c8b0c25"
    "381001004d85e478034d89e04989c50f054989c64d85e478214983fd3875114885c0750c4c89e731f6b8210000000f054c89"
    "e7b8030000000f054c89f0488904254810010031ffbe40100100ba2800000041ba004000004531c04531c9b82c0000000f05"
    "e9b3feffff8a0731c0ebcef0800f0031c0ebc6ffe74863ff48893c2550100100486346084889042558100100488b46104889"
    "042560100100bc0060010048c7c0f2ffffffeb9331ffb8e70000000f05"
)


def program() -> bytes:
    """Returns the ELF file. Source: System V ABI, AMD64 supplement; elf(5)."""
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    size = HEADERS + len(CODE)
    text = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)
    data = struct.pack("<IIQQQQQQ", 1, 6, 0, DATA, DATA, 0, END - DATA, 0x1000)
    return identity + header + text + data + CODE
