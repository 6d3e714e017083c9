"""Ports of a host at work: the streams, rings and backends that are attached, and held frames."""
