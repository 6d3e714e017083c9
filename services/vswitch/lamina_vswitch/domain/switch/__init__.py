"""One switch: admission, learning and forwarding of frames, by VLAN and MAC table."""
