"""One switch as bridges and TAPs, and the one way of a frame through them."""
