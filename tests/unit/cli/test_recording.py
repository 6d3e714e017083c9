"""What a run in virtual time is a function of: written into a log's header, read back, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from lamina_cli.client.home import LAYERS
from lamina_cli.main import main
from lamina_cli.stack import recording, virtual_stack
from lamina_cli.stack.embedded import Settings
from lamina_kit.errors import DataLoss, FailedPrecondition
from lamina_kit.gateway.gateway import Gateway
from lamina_kit.gateway.log import Header
from lamina_kit.virtual.loop import VirtualLoop

CONFIG = "[hardware]\ncores = 3\n"


@pytest.fixture(autouse=True)
def fixed_hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets no variable of the machine decide."""
    recording.without_variables()
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    yield


@pytest.fixture
def started(tmp_path: Path) -> recording.Started:
    """What a stack with a configuration file and an override was started with."""
    (tmp_path / "given.toml").write_text(CONFIG)
    settings = Settings(
        hosts=2,
        config_file=tmp_path / "given.toml",
        overrides={"LAMINA_HARDWARE_MEMORY_BYTES": str(1 << 30)},
        seed=7,
        clock="stepped",
    )
    return recording.Started(settings, 7, 1000)


def restored(header: Header, scratch: Path) -> recording.Started:
    """Returns what a header says, with its files in a folder of their own."""
    scratch.mkdir()
    return recording.restored(header, scratch)


def test_what_was_started_is_restored(started: recording.Started, tmp_path: Path) -> None:
    """Hosts, engines, the text of files, variables, clock, rate and seed come back; the effect is the same."""
    header = recording.header(started, kept_state=False)
    again = restored(header, tmp_path / "scratch")
    assert again.settings.config_file is not None and again.settings.config_file.read_text() == CONFIG
    assert replace(again.settings, config_file=None) == replace(started.settings, config_file=None)
    assert (again.seed, again.rate_permille) == (7, 1000)
    assert recording.differences(header, again) == [] and recording.other_software(header) == []
    assert recording.header(again, kept_state=False) == header


def test_a_restored_stack_needs_no_file_and_no_variable(
    started: recording.Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of the machine that is set counts at the start; the log holds it, so a replay has no need of it."""
    monkeypatch.setenv("LAMINA_MMU_SWAP_BYTES", str(5 << 20))
    header = recording.header(started, kept_state=False)
    assert header.configuration["variables"]["LAMINA_MMU_SWAP_BYTES"] == str(5 << 20)
    recording.without_variables()
    assert recording.differences(header, restored(header, tmp_path / "scratch")) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"version": "9.9.9"}, "version: '9.9.9' in the log"),
        ({"revision": "9.0"}, "contract revision: '9.0' in the log"),
        ({"state": "kept"}, "state: the stack began with state of an earlier run"),
        ({"hash_seed": "1\x1b[31m"}, r"PYTHONHASHSEED: '1\x1b[31m' in the log"),
    ],
)
def test_each_difference_is_named(
    started: recording.Started, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    """Version, contract revision, kept state and hashes, whose odd characters are escaped."""
    header = replace(recording.header(started, kept_state=False), **changes)
    (found,) = recording.differences(header, restored(header, tmp_path / "scratch"))
    assert found.startswith(named)


def test_a_value_that_has_another_effect_is_named(started: recording.Started, tmp_path: Path) -> None:
    """A default that has changed since, a key that is new and one that is gone are named with their layer."""
    header = recording.header(started, kept_state=False)
    effective = {layer: dict(values) for layer, values in header.configuration["effective"].items()}
    effective["hardware"] |= {"cores": "99", "gone": "x" * 10_000}
    effective["mmu"].pop("swap_bytes")
    other = replace(header, configuration={**header.configuration, "effective": effective})
    found = recording.differences(other, restored(other, tmp_path / "scratch"))
    assert found[0] == "configuration hardware.cores: '99' in the log, '3' here"
    assert found[1].startswith("configuration hardware.gone: 'xxx") and found[1].endswith("absent here")
    assert found[2].startswith("configuration mmu.swap_bytes: absent in the log")
    assert all(len(line) < 300 for line in found)


def test_other_software_is_a_warning(started: recording.Started) -> None:
    """Another Python, library or source is told, and is no refusal."""
    header = recording.header(started, kept_state=False)
    other = replace(header, software={**header.software, "python": "2.7"})
    assert recording.other_software(other) == [f"python: '2.7' in the log, {header.software['python']!r} here"]


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "../../x1"}, {"host": "H1"}, {"host": "web"}, {"hosts": 10**9}, {"hosts": 0}, {"hosts": "many"},
        {"clock": "real"}, {"engines": {"mmu": "model"}}, {"engines": []}, {"seed": 1 << 70}, {"seed": None},
        {"rate_permille": -1}, {"variables": []}, {"config_text": 5}, {"config_text": "\ud800"},
        {"fault_plan_text": "= ="}, {"fault_plan_text": 5},
    ],
)  # fmt: skip
def test_what_lamina_does_not_write_is_refused(
    started: recording.Started, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """A header is somebody else's: host names that lead out of the folder, and whatever else cannot be, are refused."""
    header = recording.header(started, kept_state=False)
    with pytest.raises(DataLoss) as caught:
        restored(replace(header, configuration={**header.configuration, **changes}), tmp_path / "scratch")
    assert caught.value.reason == "INPUT_LOG_MALFORMED" and len(caught.value.message) < 300


def test_a_header_without_a_field_is_refused(started: recording.Started, tmp_path: Path) -> None:
    """Each of the fields that start a stack has to be there."""
    header = recording.header(started, kept_state=False)
    for number, key in enumerate(set(header.configuration) - {"effective"}):
        less = {name: value for name, value in header.configuration.items() if name != key}
        with pytest.raises(DataLoss, match="not what Lamina writes"):
            restored(replace(header, configuration=less), tmp_path / f"scratch-{number}")


def test_engines_of_the_machine_do_not_live_in_virtual_time() -> None:
    """Neither `up` nor a log starts one: they work in real time, on the real kernel."""
    virtual_stack.check_supported(Settings(clock="stepped"))
    with pytest.raises(FailedPrecondition) as caught:
        virtual_stack.check_supported(Settings(clock="stepped", engines=dict.fromkeys(LAYERS, "linux")))
    assert caught.value.reason == "CLOCK_NEEDS_MODEL" and "mmu: linux" in caught.value.message


def test_an_event_log_is_written_line_by_line(tmp_path: Path) -> None:
    """A killed process leaves what it has recorded; a path that cannot be written is named."""

    class Entry:
        def json_line(self) -> str:
            return '{"event":"x"}\n'

    with recording.tallied(tmp_path / "events") as (tally, sink):
        sink(Entry())
        assert (tmp_path / "events").read_text() == '{"event":"x"}\n' and tally.count == 1
    with pytest.raises(FailedPrecondition) as caught, recording.tallied(tmp_path / "nowhere" / "events"):
        pass
    assert caught.value.reason == "EVENT_LOG_UNWRITABLE"


def test_a_log_that_is_not_there_leaves_no_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that cannot begin leaves nothing behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["replay", str(tmp_path / "none.jsonl")]) == 1
    assert list(tmp_path.iterdir()) == []


async def test_the_grace_of_a_stack_is_that_of_its_callers(started: recording.Started, tmp_path: Path) -> None:
    """`--grace` is what open calls get when the stack stops, and a second signal ends it."""
    told: list[object] = []

    class Door:
        """A gateway that notes how it is closed."""

        async def shut(self, grace_s: float) -> None:
            told.append(grace_s)

        async def stop(self, work: object) -> None:
            told.append("stopped")

        def hasten(self) -> None:
            told.append("hastened")

    stack = virtual_stack.VirtualStack(started, VirtualLoop(7), tmp_path / "state")
    stack.hasten()
    stack.grace_s, stack.gateway = 77, cast("Gateway", Door())
    stack.hasten()
    await stack.close()
    assert told == ["hastened", 77, "stopped"]
