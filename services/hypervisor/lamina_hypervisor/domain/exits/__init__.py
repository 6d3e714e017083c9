"""Why a vCPU left its core: the particulars of an exit, and the books that are kept of exits and slices."""
