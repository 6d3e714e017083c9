"""A real static busybox in a container, against the same busybox on this machine.

Both see the same small tree: the container as its image, the native one as its working directory.
"""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.contract.container_runtime.runtime_stack import Stack

from lamina_cli.guests.oci import Config, File, build_image

BUSYBOX = shutil.which("busybox")
STATIC = BUSYBOX is not None and b"/ld-linux" not in Path(BUSYBOX).read_bytes()[:4096]
pytestmark = pytest.mark.skipif(not STATIC, reason="no static busybox on this machine (busybox-static has it)")

TREE = {
    "work/a.txt": b"hello\nworld\n",
    "work/b.txt": b"one two\nthree\n",
    "work/sub/c.txt": b"".join(b"%d\n" % (number * 7919 % 1000) for number in range(500)),
    "work/empty": b"",
}
NATIVE = [
    "echo hello",
    "cat a.txt b.txt",
    "cat absent",
    "wc a.txt b.txt",
    "ls",
    "ls -a sub",
    "ls -ln a.txt",
    "ls absent",
    "sh -c 'ls | wc -l'",
    "sh -c 'for i in 1 2 3; do echo $i; done; exit 3'",
    "sh -c 'exit 42'",
    "sh -c 'sort -n sub/c.txt | uniq | tail -3 | tr 0-9 a-j'",
    "sh -c 'cat sub/c.txt sub/c.txt sub/c.txt | grep 1 | wc -l'",
    "sh -c 'echo a > new; echo b >> new; cat new; rm new; cat new'",
    "sh -c 'mkdir -p x/y; cp a.txt x/y; mv x z; find z; rm -r z; ls'",
    "sh -c 'ln -s a.txt l; readlink l; cat l; rm l'",
    "sh -c 'false; echo $?; true; echo $?; absent-program; echo $?'",
    "sh -c '(exit 7); echo $?; sh -c \"kill -9 \\$\\$\"; echo $?'",
    "sh -c 'trap \"echo got\" USR1; kill -USR1 $$; echo after'",
    "sh -c 'f() { echo $((1 + 2 * 3)); }; x=$(f); echo x$x'",
    "sh -c 'echo out; echo err >&2; exit 1'",
    "sh -c 'yes | head -n 3'",
    "sh -c 'sleep 0.05 & wait $!; echo $?'",
    "sh -c 'set -- a b c; echo $# $2; shift; echo $*'",
    "sh -c 'read x < a.txt; echo $x; while read y; do echo [$y]; done < b.txt'",
    "sh -c 'dd if=/dev/zero bs=1024 count=64 2>/dev/null | md5sum; printf %s abc | sha256sum'",
    "sh -c 'cd sub && pwd | sed s,.*/,, ; cd .. && test -d sub && echo yes'",
    "sh -c 'umask 027; touch p; stat -c %a p; chmod 600 p; stat -c %a p; rm p'",
    "sed -n 2p a.txt",
    "awk 'BEGIN { for (i = 0; i < 5; i++) printf \"%d %s\\n\", i * i, sqrt(i) }'",
    "tar -cf - a.txt b.txt | wc -c",
    "expr 6 '*' 7",
    "seq 1 5",
    "cut -d' ' -f1 b.txt",
    "head -c 5 a.txt",
    "md5sum a.txt sub/c.txt",
    "gzip -c a.txt",
    "sh -c 'timeout 1 sleep 5; echo $?'",
    "env",
]


def image() -> bytes:
    """Returns an image with busybox, a link for each of its applets, and the tree."""
    assert BUSYBOX is not None
    program = Path(BUSYBOX).read_bytes()
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    files = [File("bin/busybox", program, mode=0o755)]
    files += [File(f"bin/{name}", kind="symlink", target="busybox") for name in applets if name != "busybox"]
    files += [File(path, data, mode=0o644, uid=os.getuid(), gid=os.getgid()) for path, data in TREE.items()]
    accounts = f"root:x:0:0:root:/root:/bin/sh\nu:x:{os.getuid()}:{os.getgid()}::/:/bin/sh\n".encode()
    group = grp.getgrgid(os.getgid()).gr_name
    files.append(File("etc/passwd", accounts))
    files.append(File("etc/group", f"{group}:x:{os.getgid()}:\n".encode()))
    return build_image(files, Config(env=("PATH=/bin",), working_dir="/work"))


@pytest.fixture
async def busybox(stack: Stack) -> object:
    """Returns the imported image."""
    return await stack.import_image(image())


def natively(tmp_path: Path, command: str) -> tuple[int, bytes, bytes]:
    """Runs a command with this machine's busybox in a copy of the tree."""
    assert BUSYBOX is not None
    for path, data in TREE.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(0o644)
        os.utime(file, ns=(0, 0))
    (tmp_path / "bin").mkdir(exist_ok=True)
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in applets:
        (tmp_path / "bin" / name).symlink_to(BUSYBOX)
    environment = {"PATH": str(tmp_path / "bin")}
    words = ["sh", "-c", command]
    done = subprocess.run(
        [BUSYBOX, *words],
        cwd=tmp_path / "work",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", [command for command in NATIVE if command != "env"])
async def test_busybox_behaves_as_natively(stack: Stack, busybox: object, tmp_path: Path, command: str) -> None:
    """Output, errors and exit code of a shell command are those that this machine gives."""
    ended = await stack.run(busybox, "/bin/sh", "-c", command)  # type: ignore[arg-type]
    assert (ended.code, ended.out, ended.err) == natively(tmp_path, command)


async def test_the_environment_is_the_containers(stack: Stack, busybox: object) -> None:
    """A program sees the image's variables, the container's, and nothing of this machine."""
    ended = await stack.run(busybox, "env", env=["GREETING=hi"])  # type: ignore[arg-type]
    names = sorted(line.partition("=")[0] for line in ended.out.decode().splitlines())
    assert names == ["GREETING", "HOME", "HOSTNAME", "PATH"]


async def test_the_container_sees_only_itself(stack: Stack, busybox: object) -> None:
    """Processes, mounts and host name are the container's own."""
    sandbox = await stack.sandbox(hostname="web-1")
    command = "hostname; echo $$; ls /; ps -o pid,args | grep -v ps; cat /proc/mounts | wc -l; id -u"
    ended = await stack.run(busybox, "sh", "-c", command, sandbox=sandbox)  # type: ignore[arg-type]
    lines = ended.out.decode().splitlines()
    assert lines[:2] == ["web-1", "1"]
    assert lines[2:9] == ["bin", "dev", "etc", "proc", "sys", "work", "PID   COMMAND"]
    assert lines[-2:] == ["5", "0"]


async def test_a_user_without_rights_has_none(stack: Stack, busybox: object) -> None:
    """A container that runs as another user cannot write where root may."""
    ended = await stack.run(busybox, "sh", "-c", "id -u; echo x > /etc/y; kill -0 1", user="4711:4711")  # type: ignore[arg-type]
    assert ended.out == b"4711\n"
    assert b"Permission denied" in ended.err
