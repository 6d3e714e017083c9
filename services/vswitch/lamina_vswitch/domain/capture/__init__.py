"""Who watches frames: filters, captures and mirrors, and the records that are kept of them."""
