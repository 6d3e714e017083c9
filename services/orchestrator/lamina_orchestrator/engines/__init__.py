"""Who is the control plane: the interface of an engine, and one package for each engine."""
