"""Overlays, VLANs that span hosts: VXLAN, the remote ends, and the tunnels that they share."""
