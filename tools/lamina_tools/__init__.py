"""What those who change Lamina run by `./run`: tests, checks, generation; not shipped."""
