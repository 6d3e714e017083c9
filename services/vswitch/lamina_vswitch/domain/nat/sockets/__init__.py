"""Outsides that are sockets of this process: a flow ends in one, and a second carries it on."""
