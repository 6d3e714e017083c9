"""/proc: processes and the system as files of text."""
