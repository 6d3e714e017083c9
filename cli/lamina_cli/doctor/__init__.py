"""What `lamina doctor` looks at on this machine, and the questions that it asks."""
