"""Random programs: straight lines, forward branches and bounded loops, and how a failing one is made smaller.

A program is a tree of nodes. No instruction of it reads a flag that is undefined there, whichever way was taken.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.contract.hardware.snippets.encoding import CONDITIONS, SHAPES, Instruction
from tests.contract.hardware.snippets.snippet import STATUS


@dataclass(frozen=True, slots=True)
class Branch:
    """The body is skipped under a condition."""

    condition: str
    body: Program


@dataclass(frozen=True, slots=True)
class Loop:
    """The body runs `turns` times; R14 counts them down. Each turn begins with a comparison, for defined flags."""

    turns: int
    body: Program


Program = tuple["Instruction | Branch | Loop", ...]

COMPARE = Instruction(b"\x48\x39\xd8", "cmp rax, rbx", 0, STATUS)


def generate(rng: random.Random, length: int) -> Program:
    """Returns a program of about `length` instructions, of which none reads an undefined flag."""
    return _block(rng, length, 0, 0)[0]


def _block(rng: random.Random, length: int, undefined: int, depth: int) -> tuple[Program, int]:
    """Returns nodes, and the flags that are undefined behind them."""
    shapes, weights = zip(*SHAPES, strict=True)
    nodes: list[Instruction | Branch | Loop] = []
    while length > 0:
        kind = rng.random()
        inner = min(length, rng.randrange(2, 8))
        if depth < 2 and kind < 0.06:
            condition = rng.choice([name for name, reads in CONDITIONS.items() if not reads & undefined] or [""])
            if condition:
                body, behind = _block(rng, inner, undefined, depth + 1)
                nodes.append(Branch(condition, body))
                undefined |= behind
                length -= inner
            continue
        if depth == 0 and kind < 0.09:
            body, behind = _block(rng, inner, 0, depth + 1)
            nodes.append(Loop(rng.randrange(1, 9), body))
            undefined = behind & 1  # DEC of the counter defines all but CF
            length -= inner
            continue
        instruction = rng.choices(shapes, weights)[0](rng)
        if not instruction.reads & undefined:
            nodes.append(instruction)
            undefined = undefined & ~instruction.defines | instruction.undefines
            length -= 1
    return tuple(nodes), undefined


def undefined_behind(program: Program, undefined: int = 0) -> int | None:
    """Returns the flags that are undefined behind a program; None when it reads one that is."""
    for node in program:
        if isinstance(node, Instruction):
            if node.reads & undefined:
                return None
            undefined = undefined & ~node.defines | node.undefines
        elif isinstance(node, Branch):
            behind = None if CONDITIONS[node.condition] & undefined else undefined_behind(node.body, undefined)
            if behind is None:
                return None
            undefined |= behind
        else:
            behind = undefined_behind(node.body, 0)
            if behind is None:
                return None
            undefined = behind & 1
    return undefined


def assemble(program: Program) -> bytes:
    """Returns the machine code, without the HLT behind it."""
    code = b""
    for node in program:
        if isinstance(node, Instruction):
            code += node.code
            continue
        body = assemble(node.body)
        if isinstance(node, Branch):
            number = tuple(CONDITIONS).index(node.condition)
            code += bytes([0x0F, 0x80 | number]) + len(body).to_bytes(4, "little") + body
        else:
            body = COMPARE.code + body + b"\x41\xff\xce"  # dec r14d
            back = -(len(body) + 6)
            code += b"\x41\xbe" + node.turns.to_bytes(4, "little") + body  # mov r14d, turns
            code += b"\x0f\x85" + back.to_bytes(4, "little", signed=True)  # jnz
    return code


def listing(program: Program, indent: str = "") -> str:
    """Returns a program for people: bytes and text, a line each."""
    lines = []
    for node in program:
        if isinstance(node, Instruction):
            lines.append(f"{indent}{node.code.hex():<24} {node.text}")
        elif isinstance(node, Branch):
            lines += [f"{indent}unless {node.condition}:", listing(node.body, indent + "    ")]
        else:
            lines += [f"{indent}{node.turns} times, after cmp rax, rbx:", listing(node.body, indent + "    ")]
    return "\n".join(lines)


def smaller(program: Program) -> Iterator[Program]:
    """Yields programs with less in them: halves first, then one node less, then a smaller node."""
    count = len(program)
    size = count // 2
    while size:
        for start in range(0, count, size):
            yield program[:start] + program[start + size :]
        size //= 2
    for number, node in enumerate(program):
        before, after = program[:number], program[number + 1 :]
        if isinstance(node, Instruction):
            continue
        yield before + node.body + after
        if isinstance(node, Loop) and node.turns > 1:
            yield (*before, replace(node, turns=1), *after)
        for body in smaller(node.body):
            yield (*before, replace(node, body=body), *after)
