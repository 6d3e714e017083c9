"""Memory management over page tables in the host's RAM, pure; the engine joins the packages."""
