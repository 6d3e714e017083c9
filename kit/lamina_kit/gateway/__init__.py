"""Where the outside meets a stack on another clock: what enters is ordered, logged and can be replayed."""
