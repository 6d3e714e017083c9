"""The rules of the house: each yields the lines of a file, or the folders of the tree, that break it."""
