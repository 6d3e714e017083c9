"""An image as the runtime keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from lamina_container_runtime.domain.images.oci_document import RunConfig


@dataclass(frozen=True)
class ImageRecord:
    """One image. `image_id` is the hexadecimal digest of its configuration.

    `layers` are digests of the layers as stored, `diff_ids` those of their plain tars, both lowest first; `references`
    are normalised and in alphabetical order; `blobs` lists all its blobs with their sizes.
    """

    image_id: str
    manifest_digest: str
    references: tuple[str, ...]
    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]
    run: RunConfig
    size_bytes: int
    import_time_ns: int


def command_of(run: RunConfig, command: tuple[str, ...], args: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the command line: what the creator gives replaces what the image has, as in a pod.

    | command | args | runs |
    |---|---|---|
    | –  | –  | entrypoint + cmd |
    | –  | A  | entrypoint + A |
    | C  | –  | C |
    | C  | A  | C + A |
    """
    if command:
        return command + args
    return run.entrypoint + (args or run.cmd)


def environment_of(run: RunConfig, added: tuple[str, ...], hostname: str, home: str) -> tuple[str, ...]:
    """Returns the environment: the image's, with the creator's keys over it, then PATH, HOSTNAME and HOME if unset."""
    values: dict[str, str] = {}
    for pair in (*run.env, *added):
        key, _, value = pair.partition("=")
        values[key] = value
    values.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    values.setdefault("HOSTNAME", hostname)
    values.setdefault("HOME", home or "/root")
    return tuple(f"{key}={value}" for key, value in values.items())
