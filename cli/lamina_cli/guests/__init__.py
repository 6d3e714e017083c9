"""Programs of guests: their sources, the compiler, and what is made of them and sent to the layers."""
