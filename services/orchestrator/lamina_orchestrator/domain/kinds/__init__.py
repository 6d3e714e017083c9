"""What an object is: plain data, the kinds that are served, their schemas and the types of their fields."""
