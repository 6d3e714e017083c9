"""All state of the model engine, and the indivisible changes that operations are made of."""
