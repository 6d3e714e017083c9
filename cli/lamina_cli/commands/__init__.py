"""The words of the command line, by layer: each module adds its flags and does one call after another."""
