"""Devices that are attached by a call: what waits between the engine and a stream or a ring."""
