"""Where numba keeps compiled code, known without numba."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

VARIABLE = "NUMBA_CACHE_DIR"


def choose() -> str:
    """Returns the folder that numba was told to use for its cache; empty when that is beside each source file.

    Where this package lies in a folder that is not writable, numba is told to use one that is: it would refuse to
    cache. That must come before the import of numba, which reads the variable.
    """
    if not os.access(Path(__file__).parent, os.W_OK):
        os.environ.setdefault(VARIABLE, str(Path(tempfile.gettempdir()) / f"lamina-numba-{os.getuid()}"))
    return os.environ.get(VARIABLE, "")
