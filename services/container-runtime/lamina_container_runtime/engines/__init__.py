"""Who runs containers: the interface of an engine, and one package for each engine."""
