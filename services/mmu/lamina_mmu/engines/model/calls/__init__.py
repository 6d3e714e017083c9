"""The calls of the engine's interface, routed to the packages beside this one, and whose things are whose."""
