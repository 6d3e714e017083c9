"""Pure types and rules of virtual machines that hold for every engine."""
