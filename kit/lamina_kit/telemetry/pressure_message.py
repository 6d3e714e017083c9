"""Pressure as the message of the contract that all layers share."""

from __future__ import annotations

from lamina.common.v1 import pressure_pb2

from lamina_kit.telemetry.pressure import Reading


def pressure_message(read: Reading) -> pressure_pb2.Pressure:
    """Returns a reading as a message."""
    return pressure_pb2.Pressure(
        some_ns=read.some_ns,
        full_ns=read.full_ns,
        some_10s_ppm=read.some_ppm[0],
        some_60s_ppm=read.some_ppm[1],
        some_300s_ppm=read.some_ppm[2],
        full_10s_ppm=read.full_ppm[0],
        full_60s_ppm=read.full_ppm[1],
        full_300s_ppm=read.full_ppm[2],
    )
