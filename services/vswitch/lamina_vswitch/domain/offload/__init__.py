"""What devices leave to the switch or take from it: checked at ingress, finished at egress."""
