"""Where callers outside meet a stack in virtual time: calls in an order that is logged and replayed."""
