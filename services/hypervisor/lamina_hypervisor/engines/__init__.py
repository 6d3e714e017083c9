"""What an engine of the hypervisor must do, the effects it asks for, and a package for each engine."""
