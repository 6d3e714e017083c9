"""Translation of addresses and ports for one network: here, what joins its parts."""
