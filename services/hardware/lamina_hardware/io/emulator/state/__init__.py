"""The state of a core as compiled code has it: words at known places, and what they mean."""
