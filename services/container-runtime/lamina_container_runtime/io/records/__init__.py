"""What survives a restart beside images: the database of records, and the logs of containers."""
