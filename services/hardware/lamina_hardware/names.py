"""Resource names of this layer."""

from __future__ import annotations

from lamina_kit.errors import NotFound
from lamina_kit.names import Pattern

HOST = Pattern("hosts/{host}")
CORE = Pattern("hosts/{host}/cores/{core}")
RUN_GROUP = Pattern("hosts/{host}/runGroups/{run_group}")
CONTEXT = Pattern("hosts/{host}/contexts/{context}")
DEVICE = Pattern("hosts/{host}/devices/{device}")
DMA_DOMAIN = Pattern("hosts/{host}/dmaDomains/{dma_domain}")
DISK = Pattern("hosts/{host}/disks/{disk}")
NIC = Pattern("hosts/{host}/nics/{nic}")
WIRE = Pattern("hosts/{host}/wires/{wire}")
IO_GROUP = Pattern("hosts/{host}/ioGroups/{io_group}")


class Names:
    """Formats and parses the names of one host's objects."""

    def __init__(self, host: str) -> None:
        self.host = host

    def check_host(self, name: str) -> None:
        """Raises `NotFound` `HOST_UNKNOWN` when a name is of another host; empty means this one."""
        if name and HOST.parse(name)["host"] != self.host:
            raise NotFound(
                f"This service drives hosts/{self.host}, not {name}.",
                reason="HOST_UNKNOWN",
                next_step="Call the hardware service of that host.",
            )

    def run_group(self, name: str, field: str = "name") -> str:
        """Returns the id in a run group's name; empty stays empty and means the root."""
        return self._own(RUN_GROUP, "run_group", name, field, "RUN_GROUP_UNKNOWN") if name else ""

    def format_run_group(self, run_group: str) -> str:
        """Returns a run group's name; that of the root is empty."""
        return RUN_GROUP.format(host=self.host, run_group=run_group) if run_group else ""

    def format_context(self, key: int) -> str:
        """Returns a context's name."""
        return CONTEXT.format(host=self.host, context=f"c-{key}")

    def format_core(self, core: int) -> str:
        """Returns a core's name."""
        return CORE.format(host=self.host, core=str(core))

    def device(self, name: str, field: str = "name") -> str:
        """Returns the id in a device's name."""
        return self._own(DEVICE, "device", name, field, "DEVICE_UNKNOWN")

    def dma_domain(self, name: str, field: str = "name") -> str:
        """Returns the id in a DMA domain's name."""
        return self._own(DMA_DOMAIN, "dma_domain", name, field, "DMA_DOMAIN_UNKNOWN")

    def disk(self, name: str, field: str = "name") -> str:
        """Returns the id in a disk's name."""
        return self._own(DISK, "disk", name, field, "DISK_UNKNOWN")

    def io_group(self, name: str, field: str = "name") -> str:
        """Returns the id in an I/O group's name; empty stays empty and means the root."""
        return self._own(IO_GROUP, "io_group", name, field, "IO_GROUP_UNKNOWN") if name else ""

    def nic(self, name: str, field: str = "name") -> str:
        """Returns the id in a NIC's name."""
        return self._own(NIC, "nic", name, field, "NIC_UNKNOWN")

    def wire(self, name: str, field: str = "name") -> str:
        """Returns the id in a wire's name."""
        return self._own(WIRE, "wire", name, field, "WIRE_UNKNOWN")

    def format_nic(self, nic: str) -> str:
        """Returns a NIC's name."""
        return NIC.format(host=self.host, nic=nic)

    def format_wire(self, wire: str) -> str:
        """Returns a wire's name."""
        return WIRE.format(host=self.host, wire=wire)

    def format_disk(self, disk: str) -> str:
        """Returns a disk's name."""
        return DISK.format(host=self.host, disk=disk)

    def format_io_group(self, io_group: str) -> str:
        """Returns an I/O group's name; that of the root is empty."""
        return IO_GROUP.format(host=self.host, io_group=io_group) if io_group else ""

    def format_device(self, device: str) -> str:
        """Returns a device's name."""
        return DEVICE.format(host=self.host, device=device)

    def format_dma_domain(self, key: int) -> str:
        """Returns a DMA domain's name; that of none is empty."""
        return DMA_DOMAIN.format(host=self.host, dma_domain=f"d-{key}") if key else ""

    def format_host(self) -> str:
        """Returns the host's name."""
        return HOST.format(host=self.host)

    def _own(self, pattern: Pattern, part: str, name: str, field: str, reason: str) -> str:
        """Returns the id in a name of this host. Raises `NotFound` with `reason` for one of another host."""
        ids = pattern.parse(name, field)
        if ids["host"] != self.host:
            raise NotFound(
                f"{name} is a {part.replace('_', ' ')} of another host.",
                reason=reason,
                next_step=f"Use those of hosts/{self.host}.",
            )
        return ids[part]
