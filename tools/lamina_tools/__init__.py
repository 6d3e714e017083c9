"""What those who change Lamina run, one word of `./run` a module: tests, checks, generation; it is not shipped."""
