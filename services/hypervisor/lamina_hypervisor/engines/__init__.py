"""Who runs virtual machines: the interface of an engine, its effects, and one package for each engine."""
