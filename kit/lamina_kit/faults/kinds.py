"""What can break in a layer: the kinds of fault that it registers, and the check of a request against one. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lamina_kit.checks import Checks, shown
from lamina_kit.names import Pattern

MAX_NS = 1 << 62


@dataclass(frozen=True)
class Parameter:
    """What a kind of fault takes: a whole number within `minimum` to `maximum`, or one of `choices`.

    `default` is a text, as in a request; an empty one means that the parameter must be given.
    """

    key: str
    description: str
    minimum: int = 0
    maximum: int = 0
    choices: tuple[str, ...] = ()
    default: str = ""


@dataclass(frozen=True)
class Breakage:
    """One fault as its kind's functions see it: its name, its object and the ids in it, its parameters by key.

    Numbers stand in `numbers`, choices in `choices`; each parameter is in one of the two. `name` is what
    the layer's own events give as their cause.
    """

    name: str
    object: str
    ids: Mapping[str, str]
    numbers: Mapping[str, int]
    choices: Mapping[str, str]


Effects = Mapping[str, object]
"""What a fault found and did, for people: integers and names."""
Inject = Callable[[Breakage], Effects | Awaitable[Effects]]
Clear = Callable[[Breakage], None | Awaitable[None]]


def _whole(_: Breakage) -> str:
    return ""


@dataclass(frozen=True)
class FaultKind:
    """One way to break. `inject` raises a `LaminaError` when the object is not there or cannot break so now.

    `clear` undoes it; a kind without it happens once and does not last. `part` names the part of the object that a
    fault breaks, if it does not break it as a whole: faults of other parts may be active beside it.
    """

    name: str
    objects: Pattern
    description: str
    inject: Inject
    clear: Clear | None = None
    parameters: tuple[Parameter, ...] = field(default=())
    part: Callable[[Breakage], str] = _whole

    @property
    def lasting(self) -> bool:
        """Whether a fault of this kind lasts until it is cleared or expires."""
        return self.clear is not None

    def check(self, name: str, object: str, given: Sequence[tuple[str, str]], duration_ns: int) -> Breakage:
        """Returns a request as a breakage with defaults filled in.

        Raises `InvalidArgument` `FAULT_INVALID` with every violation.
        """
        numbers: dict[str, int] = {}
        choices: dict[str, str] = {}
        with Checks("FAULT_INVALID") as check:
            check.that(self.objects.matches(object), "fault.object", f"does not fit {self.objects.pattern}")
            check.range("fault.duration_ns", duration_ns, 0, MAX_NS)
            check.that(self.lasting or not duration_ns, "fault.duration_ns", f"is given, but {self.name} happens once")
            keys = [key for key, _ in given]
            known = {parameter.key for parameter in self.parameters}
            for key in dict.fromkeys(keys):
                check.that(key in known, f"fault.parameters[{shown(key)}]", f"is not a parameter of {self.name}")
                check.that(keys.count(key) == 1, f"fault.parameters[{shown(key)}]", "is given more than once")
            values = dict(given)
            for parameter in self.parameters:
                text = values.get(parameter.key, parameter.default)
                where = f"fault.parameters[{parameter.key}]"
                if parameter.choices:
                    check.one_of(where, text, parameter.choices)
                    choices[parameter.key] = text
                else:
                    numbers[parameter.key] = _number(check, where, text, parameter)
        return Breakage(name, object, self.objects.parse(object), numbers, choices)


def _number(check: Checks, where: str, text: str, parameter: Parameter) -> int:
    """Returns a number, decimal or `0x…`; 0 with a violation noted when it is none, or out of range."""
    try:
        value = int(text, 0) if len(text) <= 40 else None
    except ValueError:
        value = None
    wrong = f"is {shown(text)}, not a whole number" if text else "is missing"
    if not check.that(value is not None, where, wrong) or value is None:
        return 0
    check.range(where, value, parameter.minimum, parameter.maximum)
    return value
