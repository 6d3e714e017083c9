"""What people type, read and checked before anything is called: values, files, the verbs of a word."""
