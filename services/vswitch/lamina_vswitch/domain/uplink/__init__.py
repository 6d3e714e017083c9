"""The ports that lead out of a switch: what users define of them, and how they share frames."""
