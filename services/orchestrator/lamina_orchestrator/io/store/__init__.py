"""Where objects are kept: one behaviour, on disk or in memory."""
