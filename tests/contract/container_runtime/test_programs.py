"""What programs may do, and what happens to those that may not."""

from __future__ import annotations

import errno

import pytest
from lamina.container_runtime.v1 import container_runtime_pb2 as pb
from lamina.mmu.v1 import mmu_pb2
from tests.contract.container_runtime.runtime_stack import Stack, compile_test_program, image_of

from lamina_cli.guests.oci import Config, File, build_image

RESIDENT = mmu_pb2.TranslateResponse.RESIDENCY_RAM
FAULTS = (
    ("a null pointer", 139, "SIGSEGV"),
    ("a write to text", 139, "SIGSEGV"),
    ("a jump into data", 139, "SIGSEGV"),
    ("a division by zero", 136, "SIGFPE"),
    ("an undefined instruction", 132, "SIGILL"),
    ("a privileged instruction", 139, "SIGSEGV"),
    ("a port access", 139, "SIGSEGV"),
    ("a breakpoint", 133, "SIGTRAP"),
    ("a jump into nothing", 139, "SIGSEGV"),
    ("a non-canonical address", 139, "SIGSEGV"),
    ("a stack that overflows", 139, "SIGSEGV"),
)


async def test_faults_end_as_linux_ends_them(stack: Stack) -> None:
    """A program that does what it must not is killed by the signal that Linux sends, and the others go on."""
    image = await stack.import_image(image_of("fault"))
    for kind, (what, code, signal) in enumerate(FAULTS):
        ended = await stack.run(image, "/fault", str(kind))
        assert (ended.code, ended.message) == (code, f"killed by {signal}"), what


async def test_bad_pointers_are_efault(stack: Stack) -> None:
    """Pointers outside the program give EFAULT; the kernel and the program go on."""
    image = await stack.import_image(image_of("badpointer"))
    ended = await stack.run(image, "/badpointer")
    lines = ended.out.decode().splitlines()
    assert ended.code == 0
    assert {line.rpartition(" ")[2] for line in lines if not line.startswith(("read", "text"))} == {"-14"}
    assert "text 4" in lines


async def test_fork_bomb_is_bounded(stack: Stack) -> None:
    """Forks stop at the sandbox's limit with EAGAIN, and all of it is gone when process 1 ends."""
    image = await stack.import_image(image_of("forkbomb"))
    sandbox = await stack.sandbox(pids_limit=20)
    name = await stack.start_container(image, "/forkbomb", sandbox=sandbox)
    ended = await stack.wait(name)
    out, _ = await stack.output(name)
    assert (ended.exit_code, out) == (7, b"children 19\nerror -11\n")
    assert await stack.processes(name) == []
    again = await stack.run(image, "/forkbomb", sandbox=sandbox)
    assert again.out == b"children 19\nerror -11\n"


async def test_a_spinning_program_can_be_killed(stack: Stack) -> None:
    """A program that makes no system call is stopped by SIGKILL."""
    image = await stack.import_image(image_of("spin"))
    name = await stack.start_container(image, "/spin")
    (process,) = await stack.processes(name)
    while process.state != pb.Process.STATE_RUNNING:
        (process,) = await stack.processes(name)
    await stack.containers.KillContainer(pb.KillContainerRequest(name=name))
    assert (await stack.wait(name)).exit_code == 137


async def test_memory_limit_kills_with_a_reason(stack: Stack) -> None:
    """A program that needs more than its limit is killed: exit code 137, reason OOMKilled, a decision in the log."""
    image = await stack.import_image(image_of("hog"))
    ended = await stack.run(image, "/hog", resources=pb.Resources(memory_limit_bytes=2 << 20))
    assert (ended.code, ended.reason) == (137, "OOMKilled")
    (decision,) = await stack.events("process.oom_killed")
    assert decision.rule
    within = await stack.run(image, "/hog", "512", resources=pb.Resources(memory_limit_bytes=2 << 20))
    assert (within.code, within.out) == (0, b"wrote KiB 512\n")


async def test_swap_beside_the_limit_is_used_before_killing(stack: Stack) -> None:
    """With a swap limit a program gets that much more."""
    image = await stack.import_image(image_of("hog"))
    limits = pb.Resources(memory_limit_bytes=2 << 20, swap_limit_bytes=8 << 20)
    ended = await stack.run(image, "/hog", "4096", resources=limits)
    assert (ended.code, ended.out) == (0, b"wrote KiB 4096\n")


async def test_processes_are_a_family(stack: Stack) -> None:
    """fork shares nothing that is written, vfork does; statuses, SIGPIPE and orphans are as on Linux."""
    image = await stack.import_image(image_of("family"))
    ended = await stack.run(image, "/family")
    assert ended.out.decode().splitlines() == [
        "parent 1",
        "waited 1",
        f"status {42 << 8}",
        "value 1",
        "after vfork 3",
        "no child -10",
        "sigpipe 13",
        "refused as process 1 0",
        f"orphan {5 << 8}",
    ]
    assert ended.code == 0


async def test_threads_share_memory_and_meet_in_futexes(stack: Stack) -> None:
    """Two threads that count under a futex lock lose nothing."""
    image = await stack.import_image(image_of("threads"))
    ended = await stack.run(image, "/threads")
    assert (ended.code, ended.out) == (0, b"total 4000\n")


async def test_interrupted_calls_fail_or_go_on(stack: Stack) -> None:
    """A signal ends a waiting read with EINTR, or restarts it with SA_RESTART; floating point survives the handler."""
    image = await stack.import_image(image_of("interrupt"))
    ended = await stack.run(image, "/interrupt")
    assert (ended.code, ended.out) == (0, b"alarm\nplain -4\nfeed\nrestarted 1\n")


async def test_unknown_calls_are_enosys_and_recorded_once(stack: Stack) -> None:
    """A system call that the kernel does not have is ENOSYS, counted, and one event of its container."""
    image = await stack.import_image(image_of("unknown"))
    ended = await stack.run(image, "/unknown")
    assert ended.out == b"unknown -38\nunknown -38\n"
    (event,) = await stack.events("syscall.unsupported")
    assert {item.key: item.value for item in event.inputs}["number"] == "9999"


async def test_one_address_leads_to_different_frames(stack: Stack) -> None:
    """Two processes of one program have the same variable at the same address, in frames of their own."""
    image = await stack.import_image(image_of("where"))
    names = [await stack.start_container(image, "/where", mark) for mark in ("111", "222")]
    addresses, data = [], []
    for name in names:
        async for entry in stack.containers.ReadLogs(pb.ReadLogsRequest(name=name, follow=True)):
            addresses.append(int(entry.data.split()[1]))
            break
        (process,) = await stack.processes(name)
        request = mmu_pb2.TranslateRequest(name=process.space, address=addresses[-1])
        data.append(await stack.spaces.Translate(request))
    assert addresses[0] == addresses[1]
    assert [walk.residency for walk in data] == [RESIDENT, RESIDENT]
    assert data[0].physical_address != data[1].physical_address
    assert all("RW" in walk.steps[-1].bits and "D" in walk.steps[-1].bits for walk in data)


async def test_programs_share_the_frames_of_their_text(stack: Stack) -> None:
    """Two containers of one image execute from the same frames."""
    image = await stack.import_image(image_of("where"))
    frames = []
    for mark in ("1", "2"):
        name = await stack.start_container(image, "/where", mark)
        async for _ in stack.containers.ReadLogs(pb.ReadLogsRequest(name=name, follow=True)):
            break
        (process,) = await stack.processes(name)
        mappings = await stack.spaces.ListMappings(mmu_pb2.ListMappingsRequest(name=process.space))
        text = next(mapping for mapping in mappings.mappings if mapping.protection.execute)
        request = mmu_pb2.TranslateRequest(name=process.space, address=text.start)
        frames.append((await stack.spaces.Translate(request)).frame)
    assert frames[0] == frames[1] != 0


async def test_processes_are_listed_with_what_they_do(stack: Stack) -> None:
    """A list of processes names space, context, command line, state, what is waited for, and counts system calls."""
    image = await stack.import_image(image_of("writer"))
    name = await stack.start_container(image, "/writer", "3", "wait")
    async for entry in stack.containers.ReadLogs(pb.ReadLogsRequest(name=name, follow=True)):
        if entry.data == b"line 3\n":
            break
    (process,) = await stack.processes(name)
    while not process.wait_channel:
        await stack.clock.sleep_ns(1_000_000)
        (process,) = await stack.processes(name)
    assert (process.pid, process.ppid, process.state) == (1, 0, pb.Process.STATE_SLEEPING)
    assert list(process.cmdline) == ["/writer", "3", "wait"]
    assert process.wait_channel == "pause"
    counts = {item.syscall: item.count for item in process.syscall_counts}
    assert counts["write"] == 5
    assert process.syscalls == sum(counts.values())
    assert process.faults > 0
    assert process.space.startswith("hosts/h1/spaces/")
    assert process.context.startswith("hosts/h1/contexts/")


@pytest.mark.parametrize("path", ["/etc/hostname", "/etc/hosts", "/proc/sys/kernel/hostname"])
async def test_the_sandbox_names_the_host(stack: Stack, path: str) -> None:
    """Files of the container that name its host have the sandbox's host name."""
    image = await stack.import_image(image_of("show"))
    ended = await stack.run(image, "/show", path, sandbox=await stack.sandbox(hostname="web-7"))
    assert ended.code == 0
    assert b"web-7" in ended.out


async def test_layers_are_united(stack: Stack) -> None:
    """A program sees the topmost file of a name, and none that a layer above removed."""
    show = File("show", compile_test_program("show"), mode=0o755)
    base = [show, File("a", b"base a"), File("b", b"base b"), File("c", b"base c")]
    archive = build_image([File("b", b"top b"), File(".wh.c")], Config(), lower_layers=[base])
    image = await stack.import_image(archive)
    outcomes = [await stack.run(image, "/show", f"/{name}") for name in "abc"]
    assert [(ended.code, ended.out) for ended in outcomes] == [(0, b"base a"), (0, b"top b"), (errno.ENOENT, b"")]


@pytest.mark.parametrize(("signal", "code"), [(15, 143), (9, 137), (6, 134)])
async def test_process_1_is_ended_by_signals_only_when_it_is_killable(stack: Stack, signal: int, code: int) -> None:
    """Process 1 survives signals it has no handler for; a killable one ends by them, as natively."""
    image = await stack.import_image(image_of("raise"))
    protected = await stack.run(image, "/raise", str(signal))
    killable = await stack.run(image, "/raise", str(signal), killable=True)
    assert (protected.code, killable.code) == (5, code)
