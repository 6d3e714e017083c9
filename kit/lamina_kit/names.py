"""Resource names such as `hosts/h1/spaces/s-1`: format, parse, refuse. Pure.

    SPACE = Pattern("hosts/{host}/spaces/{space}")
    SPACE.format(host="h1", space="s-1")        → "hosts/h1/spaces/s-1"
    SPACE.parse("hosts/h1/spaces/s-1")          → {"host": "h1", "space": "s-1"}

A variable matches one segment: 1 to 127 lower-case letters, digits, `-` and `.`, with a letter or digit first and
last. So a name is never a path that climbs (`..`), is never empty, and is safe in a file name, a URL and a log line.
Source: AIP-122 (resource names).
"""

from __future__ import annotations

import re

from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument, Violation

_SEGMENT = r"[a-z0-9](?:[-.a-z0-9]{0,125}[a-z0-9])?"
_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_LITERAL = re.compile(r"[a-z][-a-zA-Z0-9]*")
_ID = re.compile(_SEGMENT)


class Pattern:
    """One kind of resource name.

    The pattern is a `/`-separated list of literals and `{variables}`; a malformed one is a `ValueError` at import.
    """

    def __init__(self, pattern: str) -> None:
        expressions: list[str] = []
        self.variables: list[str] = []
        for segment in pattern.split("/"):
            if variable := _VARIABLE.fullmatch(segment):
                self.variables.append(variable[1])
                expressions.append(f"(?P<{variable[1]}>{_SEGMENT})")
            elif _LITERAL.fullmatch(segment):
                expressions.append(re.escape(segment))
            else:
                raise ValueError(f"the segment {segment!r} of the name pattern {pattern!r} is neither literal nor {{}}")
        self.pattern = pattern
        self._expression = re.compile("/".join(expressions))

    def __repr__(self) -> str:
        return f"Pattern({self.pattern!r})"

    def format(self, **ids: str) -> str:
        """Returns the name with these ids. An id that no name may hold is `InvalidArgument` `NAME_MALFORMED`.

        Ids that are missing or that the pattern does not have are a defect of the caller: `KeyError`.
        """
        if set(ids) != set(self.variables):
            raise KeyError(f"{self.pattern} takes {self.variables}, not {sorted(ids)}")
        for variable, value in ids.items():
            if not _ID.fullmatch(value):
                raise self._malformed(value, variable)
        return self.pattern.format_map(ids)

    def matches(self, name: str) -> bool:
        """Returns whether `name` is of this kind."""
        return self._expression.fullmatch(name) is not None

    def parse(self, name: str, field: str = "name") -> dict[str, str]:
        """Returns the ids in `name`, in the pattern's order.

        Raises `InvalidArgument` `NAME_MALFORMED`, which names the pattern and the field, when it is of another kind.
        """
        match = self._expression.fullmatch(name)
        if match is None:
            raise self._malformed(name, field)
        return match.groupdict()

    def _malformed(self, value: str, field: str) -> InvalidArgument:
        return InvalidArgument(
            f"{field} is {shown(value)}, which does not fit {self.pattern}.",
            reason="NAME_MALFORMED",
            next_step="Each part in braces is 1 to 127 lower-case letters, digits, '-' and '.'.",
            violations=[Violation(field, f"does not fit {self.pattern}")],
            pattern=self.pattern,
        )
