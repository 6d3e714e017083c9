"""Making room: which pages go, and how their bytes are saved first."""
