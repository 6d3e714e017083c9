"""What a port, a group or a switch allows and limits: guards, shapers, storm control, loop detection."""
