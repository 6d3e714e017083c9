"""Where numba keeps compiled code, known without numba."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def choose() -> str:
    """Returns the folder that numba was told to use for its cache; empty when that is beside each source file.

    Where this package lies in a folder that is not writable, numba is told to use one that is: it would refuse to
    cache. That must come before the import of numba, which reads the variable.
    """
    if VARIABLE not in os.environ and not os.access(Path(__file__).parent, os.W_OK):
        os.environ[VARIABLE] = str(_private_folder())
    return os.environ.get(VARIABLE, "")


def _private_folder() -> Path:
    """Returns a folder that nobody else can write to: what lies in it is loaded as code.

    The one of this user is kept from start to start. Where somebody else made a folder or a link of its name first, a
    new one is used, once.
    """
    folder = Path(tempfile.gettempdir()) / f"lamina-numba-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.getuid()
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        return folder
    return Path(tempfile.mkdtemp(prefix="lamina-numba-"))
