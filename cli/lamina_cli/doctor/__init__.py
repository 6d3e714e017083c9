"""`lamina doctor`: what this machine has of what the engines need."""
