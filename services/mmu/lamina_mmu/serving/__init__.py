"""One servicer for each service of the contract: parses, drives a step of the engine, answers."""
