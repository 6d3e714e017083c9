"""Who a container's processes run as: `USER[:GROUP]`, by name or number, looked up in the image's own files.

Source: OCI Image Format Specification, config.md (User); passwd(5), group(5).
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina_kit.checks import shown
from lamina_kit.errors import InvalidArgument

MAX_ID = 2**32 - 2


@dataclass(frozen=True)
class UserIds:
    """Numbers of a user: id, primary group, and supplementary groups in ascending order; `home` is its directory."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = ""


def resolve(spec: str, passwd: str, group: str) -> UserIds:
    """Returns the ids for `spec`; `InvalidArgument` `USER_UNKNOWN` for a name that the image's files do not have.

    Empty means root. A number needs no entry; its group is then 0.
    """
    user_text, colon, group_text = (spec or "0").partition(":")
    if colon and not group_text:
        raise _unknown(spec, "it names no group behind the colon")
    users = [fields for line in passwd.splitlines() if len(fields := line.split(":")) >= 6]
    found = next((fields for fields in users if user_text in (fields[0], fields[2])), None)
    if found is not None and _is_id(found[2]) and _is_id(found[3]):
        uid, gid, name, home = int(found[2]), int(found[3]), found[0], found[5]
    elif _is_id(user_text):
        uid, gid, name, home = int(user_text), 0, "", ""
    else:
        raise _unknown(spec, f"the user {shown(user_text)} is not in /etc/passwd")
    groups = [fields for line in group.splitlines() if len(fields := line.split(":")) >= 4 and _is_id(fields[2])]
    if group_text:
        return UserIds(uid, _group_id(spec, group_text, groups), (), home)
    members = sorted(int(fields[2]) for fields in groups if name and name in fields[3].split(","))
    return UserIds(uid, gid, tuple(members), home)


def _group_id(spec: str, text: str, groups: list[list[str]]) -> int:
    for fields in groups:
        if text == fields[0]:
            return int(fields[2])
    if _is_id(text):
        return int(text)
    raise _unknown(spec, f"the group {shown(text)} is not in /etc/group")


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= MAX_ID


def _unknown(spec: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"The user {shown(spec)} cannot be used: {why}.",
        reason="USER_UNKNOWN",
        next_step="Name a user and group of the image, or use numbers.",
    )
