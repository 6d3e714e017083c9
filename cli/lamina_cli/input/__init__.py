"""What people type, parsed and checked before anything is called: values, files, verbs."""
