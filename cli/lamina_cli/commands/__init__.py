"""The words of the command line, in packages by layer: each module parses its flags and makes calls."""
