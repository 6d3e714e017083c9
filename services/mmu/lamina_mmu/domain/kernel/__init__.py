"""The ports to the machine's own kernel, and the form of what its files say."""
