"""The kernel of this machine as switch: bridges, rules and programs in a namespace of its own."""
