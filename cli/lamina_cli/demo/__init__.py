"""The story that `lamina demo` tells: a module a chapter, each claim a check that can fail."""
