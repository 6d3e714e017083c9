"""What is plugged into the ports of a host: streams, rings and backends, and ports that hold their frames."""
