"""Who may call whom, and how that is proved: the caller's user, certificates, TLS, private files."""
