"""The instructions of a guest as bytes: their lengths, fields and operands."""
