"""What plugs into a port: its definition, and frames in the forms of foreign devices and files."""
