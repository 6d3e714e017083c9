"""`lamina demo`: a module a chapter, each claim of the story a check that can fail."""
