"""Who may talk to whom and how that is proved: certificates, credentials, and where TLS is needed."""
