"""VLANs that span hosts: VXLAN, the ends of overlays, and the tunnels that they share."""
