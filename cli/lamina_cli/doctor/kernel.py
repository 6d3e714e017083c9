"""What the doctor asks the kernel: processor, KVM, cgroups, namespaces, overlayfs, TAP. Read from a `Machine` alone."""

from __future__ import annotations

import re

from lamina_cli.doctor.machine import Finding, Machine

LEVELS = (
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
"""Levels of the x86-64 psABI, each beyond the one before, in the words of /proc/cpuinfo."""
WANTED = ("cpu", "memory", "pids", "io", "cpuset")
"""Controllers of which containers are made; `io` is `blkio` in version 1."""


def processor(machine: Machine) -> Finding:
    """Looks at the processor and the machine around it."""
    text = machine.text("/proc/cpuinfo")
    flags = _flags(text)
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    count = len(re.findall(r"^processor\s*:", text, re.MULTILINE))
    level = "x86-64"
    for name, needed in LEVELS:
        if not needed <= flags:
            break
        level = name
    where = "in a virtual machine" if "hypervisor" in flags else "on hardware"
    purpose = "speed: the model engines emulate the processor of their guests and run on any"
    if not flags:
        return Finding("processor", "limited", "no x86-64 processor", purpose, "Use the model engines.")
    found = f"{count} × {model[1].strip() if model else 'unnamed'}, {level}, {where}"
    return Finding(
        "processor", "ok" if count > 1 else "limited", found, purpose, "" if count > 1 else "Give it two cores."
    )


def kvm(machine: Machine) -> Finding:
    """Looks for KVM, and says of which kind it is."""
    purpose = "the kvm engine of the hardware layer: virtual machines on the processor itself"
    flags = _flags(machine.text("/proc/cpuinfo"))
    vendor = "Intel VT-x" if "vmx" in flags else "AMD-V" if "svm" in flags else ""
    if not machine.exists("/dev/kvm"):
        if vendor:
            module = "kvm_intel" if "vmx" in flags else "kvm_amd"
            return Finding("kvm", "missing", f"{vendor}, and no /dev/kvm", purpose, f"`modprobe {module}`, as root.")
        step = "Turn virtualization on in the firmware, or nested virtualization in the host of this machine."
        return Finding("kvm", "missing", "no /dev/kvm, and the processor does not show VT-x or AMD-V", purpose, step)
    if why := machine.opening("/dev/kvm"):
        step = "Join the group that owns it (`usermod -aG kvm USER`), or, in a container, pass --device /dev/kvm."
        return Finding("kvm", "limited", f"/dev/kvm cannot be opened: {why}", purpose, step)
    if (api := machine.kvm_api()) != 12:
        step = "Use another kernel, or the model engines."
        return Finding("kvm", "limited", f"/dev/kvm answers with API version {api}, not 12", purpose, step)
    if not vendor:
        step = "Run small guests, or the model engines: large kernels stop with an emulation failure."
        return Finding("kvm", "limited", "/dev/kvm without VT-x or AMD-V: a page-table based KVM", purpose, step)
    inside = ", itself nested in a virtual machine" if "hypervisor" in flags else ""
    return Finding("kvm", "ok", f"{vendor}{inside}; guests {_nesting(machine, flags)} nest", purpose)


def _nesting(machine: Machine, flags: set[str]) -> str:
    module = "kvm_intel" if "vmx" in flags else "kvm_amd"
    allowed = machine.text(f"/sys/module/{module}/parameters/nested").strip() in ("Y", "1")
    return "may" if allowed else "may not"


def cgroups(machine: Machine) -> Finding:
    """Looks at the layout of control groups, and at what of them this user may use."""
    purpose = "the linux engine of the container runtime: limits of containers"
    kinds = {"cgroup": set[str](), "cgroup2": set[str]()}
    for line in machine.text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split(" ")[0]
        if kind in kinds and len(fields) > 4:
            kinds[kind].add(fields[4])
    if not any(kinds.values()):
        return Finding("cgroups", "missing", "no hierarchy is mounted", purpose, "Mount cgroup2 on /sys/fs/cgroup.")
    if kinds["cgroup2"] and not kinds["cgroup"]:
        return _unified(machine, min(kinds["cgroup2"], key=len), purpose)
    controllers = {
        "io" if name == "blkio" else name
        for point in kinds["cgroup"]
        for name in point.rpartition("/")[2].split(",")
        if name in (*WANTED, "blkio")
    }
    layout = "hybrid: version 1 beside version 2" if kinds["cgroup2"] else "version 1"
    usable = all(machine.writable(point) for point in kinds["cgroup"])
    return _controllers(layout, controllers, usable, "written by root alone", purpose, "Run as root.")


def _unified(machine: Machine, mount: str, purpose: str) -> Finding:
    own = next((line[3:] for line in machine.text("/proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    folder = f"{mount}{own}".rstrip("/")
    controllers = set(machine.text(f"{folder}/cgroup.controllers").split())
    if own == "/":
        controllers |= set(machine.text(f"{mount}/cgroup.controllers").split())
    usable = machine.writable(f"{folder}/cgroup.procs") and machine.writable(folder)
    step = "Run as root, or have systemd delegate: `systemd-run --user --scope -p Delegate=yes lamina …`."
    return _controllers("version 2", controllers, usable, "not delegated to this user", purpose, step)


def _controllers(layout: str, have: set[str], usable: bool, why_not: str, purpose: str, step: str) -> Finding:
    lacking = [name for name in WANTED if name not in have]
    found = f"{layout}; controllers {', '.join(name for name in WANTED if name in have) or 'none'}"
    if not usable:
        return Finding("cgroups", "limited", f"{found}; {why_not}", purpose, step)
    if lacking:
        step = "Have the parent group give them down: write +NAME to its cgroup.subtree_control."
        return Finding("cgroups", "limited", f"{found}; without {', '.join(lacking)}", purpose, step)
    return Finding("cgroups", "ok", found, purpose)


def namespaces(machine: Machine) -> Finding:
    """Looks at namespaces, and at whether users without rights may make them."""
    purpose = "the linux engine of the container runtime: separation of containers"
    have = machine.names("/proc/self/ns")
    needed = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    lacking = [name for name in needed if name not in have]
    if lacking:
        step = "Use a kernel that has them, or the model engines."
        return Finding("namespaces", "missing", f"the kernel lacks {', '.join(lacking)}", purpose, step)
    if machine.text("/proc/sys/user/max_user_namespaces").strip() == "0":
        step = "`sysctl user.max_user_namespaces=15000`, or run as root."
        return Finding("namespaces", "limited", "all kinds; user namespaces are switched off", purpose, step)
    if machine.text("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        step = "`sysctl kernel.unprivileged_userns_clone=1`, or run as root."
        return Finding("namespaces", "limited", "all kinds; user namespaces for root alone", purpose, step)
    if machine.text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1":
        step = "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root."
        return Finding("namespaces", "limited", "all kinds; AppArmor restricts user namespaces", purpose, step)
    return Finding("namespaces", "ok", "all kinds, user namespaces too", purpose)


def overlayfs(machine: Machine) -> Finding:
    """Looks for overlayfs."""
    purpose = "the linux engine of the container runtime: layers of images"
    if re.search(r"\boverlay$", machine.text("/proc/filesystems"), re.MULTILINE):
        return Finding("overlayfs", "ok", "known to the kernel", purpose)
    step = "`modprobe overlay`, as root; some kernels load it at the first mount."
    return Finding("overlayfs", "missing", "not among the kernel's file systems", purpose, step)


def tap(machine: Machine) -> Finding:
    """Looks for TAP devices."""
    purpose = "the linux engine of the virtual switch: frames from and to the kernel"
    if not machine.exists("/dev/net/tun"):
        step = "`modprobe tun`, as root; in a container, pass --device /dev/net/tun."
        return Finding("tap", "missing", "no /dev/net/tun", purpose, step)
    if why := machine.opening("/dev/net/tun"):
        return Finding("tap", "limited", f"/dev/net/tun cannot be opened: {why}", purpose, "Run as root.")
    return Finding("tap", "ok", "/dev/net/tun", purpose)


def _flags(text: str) -> set[str]:
    found = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    return set(found[1].split()) if found else set()
