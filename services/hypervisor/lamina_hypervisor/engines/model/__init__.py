"""The engine that runs VMs on the modelled cores and memory; pure, what it needs of other layers are effects."""
