"""What the doctor finds on machines of several kinds, each a root with the files that its kernel would show."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lamina_cli.commands.stack import doctor
from lamina_cli.doctor import kernel, tools
from lamina_cli.doctor.machine import Finding, Machine
from lamina_hardware.io.kvm import abi

V3 = "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3 avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = "".join(
    f"{40 + place} 30 0:{50 + place} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
    for place, name in enumerate(("cpu,cpuacct", "memory", "pids", "blkio", "cpuset"))
)


def cpuinfo(flags: str, cores: int = 2) -> str:
    """Returns /proc/cpuinfo of a machine."""
    one = "processor\t: {}\nmodel name\t: Some Processor\nflags\t\t: fpu {}\n\n"
    return "".join(one.format(core, flags) for core in range(cores))


class Fake(Machine):
    """A machine of files; `may_write` and `cannot_open` say what its user may do, the rest what it would answer."""

    def __init__(self, root: Path, files: Mapping[str, str]) -> None:
        super().__init__(root)
        for name, text in files.items():
            path = self.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.may_write: tuple[str, ...] = ()
        self.cannot_open: dict[str, str] = {}
        self.api = 12
        self.installed: dict[str, tuple[int, str]] = {}
        self.taken: tuple[int, ...] = ()
        self.limits = (1 << 20, 1 << 20)
        self.space = (8 << 30, 16 << 30)

    def opening(self, name: str) -> str:
        return self.cannot_open.get(name, "")

    def writable(self, name: str) -> bool:
        return any(name == place or name.startswith(place + "/") for place in self.may_write)

    def kvm_api(self) -> int:
        return self.api

    def room(self, name: str) -> tuple[int, int]:
        return self.space

    def files_limit(self) -> tuple[int, int]:
        return self.limits

    def tool(self, name: str) -> str:
        return f"/usr/bin/{name}" if any(words.split()[0] == name for words in self.installed) else ""

    def output(self, words: list[str], limit_s: float = 4.0) -> tuple[int, str]:
        return self.installed.get(" ".join([Path(words[0]).name, *words[1:]]), (1, "unknown command"))

    def port_taken(self, port: int) -> bool:
        return port in self.taken


@pytest.mark.parametrize(
    ("flags", "level", "where"),
    [
        ("", "x86-64", "on hardware"),
        (V3, "x86-64-v3", "on hardware"),
        (f"{V3} hypervisor", "x86-64-v3", "in a virtual machine"),
        (V3.replace("ssse3", ""), "x86-64", "on hardware"),
    ],
)
def test_processors(tmp_path: Path, flags: str, level: str, where: str) -> None:
    """A level counts only with all those below it."""
    found = kernel.processor(Fake(tmp_path, {"/proc/cpuinfo": cpuinfo(flags)}))
    assert found.state == "ok" and f", {level}, {where}" in found.found and found.found.startswith("2 × Some Processor")


def test_another_architecture(tmp_path: Path) -> None:
    """Without the flags of x86 the model engines are what is left."""
    found = kernel.processor(Fake(tmp_path, {"/proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 50\n"}))
    assert found.state == "limited" and "model" in found.next_step


@pytest.mark.parametrize(
    ("flags", "device", "state", "told", "step"),
    [
        ("vmx", False, "missing", "Intel VT-x, and no /dev/kvm", "kvm_intel"),
        ("svm", False, "missing", "AMD-V, and no /dev/kvm", "kvm_amd"),
        ("", False, "missing", "does not show VT-x or AMD-V", "firmware"),
        ("vmx", True, "ok", "Intel VT-x; guests may nest", ""),
        ("svm hypervisor", True, "ok", "AMD-V, itself nested in a virtual machine; guests may not nest", ""),
        ("hypervisor", True, "limited", "page-table based", "small guests"),
    ],
)
def test_kinds_of_kvm(tmp_path: Path, flags: str, device: bool, state: str, told: str, step: str) -> None:
    """Absent, of either vendor, nested, and modelled by the kernel."""
    files = {"/proc/cpuinfo": cpuinfo(flags), "/sys/module/kvm_intel/parameters/nested": "Y\n"}
    files |= {"/sys/module/kvm_amd/parameters/nested": "0\n"} | ({"/dev/kvm": ""} if device else {})
    found = kernel.kvm(Fake(tmp_path, files))
    assert found.state == state and told in found.found and step in found.next_step


def test_kvm_that_cannot_be_used(tmp_path: Path) -> None:
    """A device without the right to it, and one that answers otherwise than KVM does."""
    machine = Fake(tmp_path, {"/proc/cpuinfo": cpuinfo("vmx"), "/dev/kvm": ""})
    machine.cannot_open = {"/dev/kvm": "Permission denied"}
    found = kernel.kvm(machine)
    assert found.state == "limited" and "Permission denied" in found.found and "usermod" in found.next_step
    machine.cannot_open, machine.api = {}, -1
    assert "API version -1" in kernel.kvm(machine).found


@pytest.mark.parametrize(
    ("mounts", "own", "controllers", "may_write", "state", "told"),
    [
        ("", "", "", (), "missing", "no hierarchy"),
        (
            V2_MOUNT,
            "0::/\n",
            "cpuset cpu io memory pids",
            ("/sys/fs/cgroup",),
            "ok",
            "version 2; controllers cpu, memory",
        ),
        (V2_MOUNT, "0::/user/me\n", "cpu io memory pids cpuset", (), "limited", "not delegated"),
        (V2_MOUNT, "0::/user/me\n", "memory pids", ("/sys/fs/cgroup/user",), "limited", "without cpu, io, cpuset"),
        (V1_MOUNTS, "", "", ("/sys/fs/cgroup",), "ok", "version 1; controllers cpu, memory, pids, io, cpuset"),
        (V1_MOUNTS, "", "", (), "limited", "root alone"),
        (V1_MOUNTS + V2_MOUNT, "", "", ("/sys/fs/cgroup",), "ok", "hybrid: version 1 beside version 2"),
    ],
)
def test_layouts_of_cgroups(
    tmp_path: Path, mounts: str, own: str, controllers: str, may_write: tuple[str, ...], state: str, told: str
) -> None:
    """Version 2, delegated or not and whole or not, version 1, both beside each other, and none."""
    folder = own.strip().removeprefix("0::").rstrip("/")
    files = {"/proc/self/mountinfo": mounts, "/proc/self/cgroup": own}
    machine = Fake(tmp_path, files | {f"/sys/fs/cgroup{folder}/cgroup.controllers": controllers})
    machine.may_write = may_write
    found = kernel.cgroups(machine)
    assert found.state == state and told in found.found
    assert bool(found.next_step) is (state != "ok")


@pytest.mark.parametrize(
    ("settings", "state", "told"),
    [
        ({}, "ok", "user namespaces too"),
        ({"/proc/sys/user/max_user_namespaces": "0\n"}, "limited", "switched off"),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0\n"}, "limited", "root alone"),
        ({"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"}, "limited", "AppArmor"),
    ],
)
def test_namespaces(tmp_path: Path, settings: dict[str, str], state: str, told: str) -> None:
    """Each of the three ways in which distributions keep user namespaces from users is seen."""
    files = {f"/proc/self/ns/{name}": "" for name in NAMESPACES} | settings
    found = kernel.namespaces(Fake(tmp_path, files))
    assert found.state == state and told in found.found


def test_a_kernel_without_namespaces(tmp_path: Path) -> None:
    """What is lacking is named."""
    found = kernel.namespaces(Fake(tmp_path, {f"/proc/self/ns/{name}": "" for name in NAMESPACES[:-2]}))
    assert found.state == "missing" and "user, uts" in found.found


def test_overlayfs_and_tap(tmp_path: Path) -> None:
    """Both are there, or what loads them is said."""
    bare = Fake(tmp_path / "bare", {"/proc/filesystems": "nodev\tproc\n\text4\nnodev\toverlayx\n"})
    assert kernel.overlayfs(bare).state == "missing" and "modprobe" in kernel.tap(bare).next_step
    full = Fake(tmp_path / "full", {"/proc/filesystems": "nodev\tproc\nnodev\toverlay\n", "/dev/net/tun": ""})
    assert (kernel.overlayfs(full).state, kernel.tap(full).state) == ("ok", "ok")
    full.cannot_open = {"/dev/net/tun": "Operation not permitted"}
    assert kernel.tap(full).state == "limited"


VERSIONS = json.dumps({"Client": {"Version": "26.1"}, "Server": {"Version": "26.1"}})
NO_DAEMON = json.dumps({"Client": {"Version": "26.1"}, "Server": None})
ASK = "docker version --format {{json .}}"


@pytest.mark.parametrize(
    ("installed", "state", "told"),
    [
        ({}, "missing", "not installed"),
        ({ASK: (1, "permission denied")}, "limited", "permission denied"),
        ({ASK: (-1, "no answer within 4 s")}, "limited", "no answer within 4 s"),
        ({ASK: (1, NO_DAEMON + "\nCannot connect")}, "limited", "no daemon answers, no compose"),
        ({ASK: (0, VERSIONS)}, "limited", "daemon 26.1, no compose, no buildx"),
        (
            {
                ASK: (0, VERSIONS),
                "docker compose version --short": (0, "2.26.1"),
                "docker buildx version": (0, "github.com/docker/buildx v0.13 abc"),
            },
            "ok",
            "client 26.1, daemon 26.1, compose 2.26.1, buildx 0.13",
        ),
    ],
)
def test_docker(tmp_path: Path, installed: dict[str, tuple[int, str]], state: str, told: str) -> None:
    """Absent, silent, without a daemon, in part and whole."""
    machine = Fake(tmp_path, {})
    machine.installed = installed
    found = tools.docker(machine)
    assert found.state == state and told in found.found


def test_tools_of_others(tmp_path: Path) -> None:
    """A tool tells its version in its first line; one that fails is limited; one that is absent says how to get it."""
    machine = Fake(tmp_path, {})
    machine.installed = {"tshark --version": (0, "TShark 4.4\nmore"), "qemu-img --version": (127, "no libfoo")}
    assert tools.tool(machine, "tshark").found == "TShark 4.4"
    assert tools.tool(machine, "qemu-img").state == "limited"
    for name in tools.TOOLS:
        found = tools.tool(Fake(tmp_path, {}), name)
        assert found.state == "missing" and "install" in found.next_step and found.purpose


def test_who_has_the_ports(tmp_path: Path) -> None:
    """Another program is named with its process, a stack of ours by its name, another user's process as that."""
    line = "   0: 0100007F:C384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0 100\n"
    machine = Fake(tmp_path, {"/proc/net/tcp": "header\n" + line, "/proc/42/comm": "nginx\n"})
    assert tools.ports(machine, {}).found == "free"
    machine.taken = (50052,)
    assert "another user" in tools.ports(machine, {}).found
    (tmp_path / "proc/42/fd").mkdir()
    os.symlink("socket:[777]", tmp_path / "proc/42/fd/5")
    found = tools.ports(machine, {})
    assert found.state == "limited" and "50052 by nginx (process 42)" in found.found and "--port" in found.next_step
    ours = tools.ports(machine, {42: "default"})
    assert ours.state == "ok" and "stack default" in ours.found


def test_limits_and_room(tmp_path: Path) -> None:
    """Little shared memory and few files limit; without a limit there is none."""
    machine = Fake(tmp_path, {"/dev/shm/x": ""})
    machine.may_write = ("/dev/shm",)
    assert tools.shared_memory(machine).state == "ok"
    machine.space = (64 << 20, 64 << 20)
    small = tools.shared_memory(machine)
    assert small.state == "limited" and "64 MiB" in small.found and "--shm-size" in small.next_step
    machine.limits = (256, 4096)
    assert tools.open_files(machine).state == "limited" and "256" in tools.open_files(machine).found
    machine.limits = (-1, -1)
    assert tools.open_files(machine).state == "ok"


def test_folders(tmp_path: Path) -> None:
    """One that is to be made is as good as its parent; a file in its way, and a parent of others, are not."""
    machine = Fake(tmp_path, {"/data/me/file": ""})
    machine.may_write = ("/data/me",)

    def look(path: str) -> Finding:
        return tools.folder(machine, "state folder", Path(path), "state", "Choose another.", required=True)

    assert look("/data/me/.local/state/lamina").state == "ok"
    assert look("/data/me/file/lamina").state == "missing"
    assert look("/data/you/lamina").state == "missing"
    machine.space = (1 << 20, 1 << 30)
    assert look("/data/me").state == "limited"


def test_an_old_python_is_missing() -> None:
    """It is required, and the oldest that does is named."""
    old = doctor.python((3, 9, 1))
    assert (old.state, old.required) == ("missing", True) and "3.11" in old.next_step
    assert doctor.python((3, 14, 0)).state == "ok"


def test_engines() -> None:
    """The model engines can run anywhere; sets that are not installed say so, and what the machine would do to them."""
    assert doctor.engines("model", []).state == "ok" and doctor.engines("model", []).required
    lacking = [Finding("kvm", "missing", "no /dev/kvm", "x")]
    assert "no /dev/kvm" in doctor.engines("kvm", lacking).found


def test_engines_of_a_limited_machine_run() -> None:
    """What the kernel does not do whole limits a set, and does not keep it from running."""
    found = doctor.engines("kvm", [Finding("kvm", "limited", "small guests only", "x")])
    assert found.state == ("missing" if abi.missing() else "limited")
    assert abi.missing() or "small guests only" in found.found


@pytest.mark.parametrize(
    ("state", "required", "status"), [("missing", True, 1), ("missing", False, 0), ("ok", True, 0)]
)
def test_only_what_is_required_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, required: bool, status: int
) -> None:
    """The exit status tells whether a stack can start; the table names what keeps it, and the JSON has all there is."""
    finding = Finding("python", state, "3.9", "everything", "Install another.", required)
    monkeypatch.setattr(doctor, "examine", lambda machine: [finding])
    args: Any = type("Args", (), {"output": "table"})
    assert doctor.doctor(args) == status
    said = capsys.readouterr().out
    assert "Install another." in said and ("no stack starts here without: python" in said) is (status == 1)
    args.output = "json"
    assert doctor.doctor(args) == status
    (row,) = json.loads(capsys.readouterr().out)
    assert set(row) == {"check", "state", "found", "purpose", "next_step", "required"}


def test_this_machine() -> None:
    """Whatever it is, each look gives a line of a known state, a purpose, and what to do where it falls short."""
    findings = doctor.examine(Machine())
    assert len({finding.check for finding in findings}) == len(findings) > 15
    for finding in findings:
        assert finding.state in ("ok", "limited", "missing") and finding.found and finding.purpose
        assert finding.next_step or finding.state == "ok", finding
    assert next(finding for finding in findings if finding.check == "engines: model").state == "ok"


def test_what_may_not_be_looked_at_is_not_there() -> None:
    """A path on which the system refuses even a look is no reason to end the report."""
    assert not Machine().exists("/" + "x" * 300)


def test_a_command_that_hangs_is_given_up() -> None:
    """Its end is not waited for."""
    status, said = Machine().output(["sleep", "60"], 0.05)
    assert status == -1 and "no answer" in said
    assert Machine().output(["/nonexistent"])[0] == -1
