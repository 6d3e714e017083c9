"""The engine that runs containers on the modelled cores and memory; pure, what it needs of other layers are effects."""
