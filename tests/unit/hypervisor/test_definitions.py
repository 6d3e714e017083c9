"""VM states, the inventory, the store and the images."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_hypervisor.domain.inventory import Inventory
from lamina_hypervisor.domain.vcpus.registers import Registers
from lamina_hypervisor.domain.vm import TRANSITIONS, Definition, Event, State, Verdict, Vm
from lamina_hypervisor.io.images import Images, digest_of
from lamina_hypervisor.io.store import Store
from lamina_kit.errors import AlreadyExists, DataLoss, FailedPrecondition, InvalidArgument, NotFound, Unavailable


def definition(vm_id: str = "web-1", memory: int = 16 << 20) -> Definition:
    """Returns a definition."""
    return Definition(vm_id, 1, memory, "sha256:0")


@pytest.fixture
def inventory() -> Inventory:
    """An empty inventory of host h1."""
    return Inventory("h1")


def test_a_vm_goes_round_its_states() -> None:
    """Start, pause, resume, end, release: the way of a VM that is powered off."""
    vm = Vm("hosts/h1/vms/a", 1, 1, definition(), 0)
    for event in (Event.START, Event.STARTED, Event.PAUSE, Event.RESUME, Event.END, Event.RELEASED):
        vm.apply(event)
    assert vm.state is State.STOPPED


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", list(Event))
def test_what_the_table_does_not_list_is_refused(state: State, event: Event) -> None:
    """Every pair of state and event is either in the table or refused by name, and the state stays."""
    vm = Vm("hosts/h1/vms/a", 1, 1, definition(), 0, state=state)
    if (state, event) in TRANSITIONS:
        vm.apply(event)
        assert vm.state is TRANSITIONS[state, event]
        return
    with pytest.raises(FailedPrecondition, match=state.value) as caught:
        vm.apply(event)
    assert caught.value.reason == "VM_STATE"
    assert vm.state is state


def test_the_weight_follows_the_vcpus() -> None:
    """A VM's share of the cores is 100 a vCPU unless it was given."""
    assert Definition("a", 3, 0, "").run_weight == 300
    assert Definition("a", 3, 0, "", weight=7).run_weight == 7


def test_a_repeated_request_returns_the_first_vm(inventory: Inventory) -> None:
    """The same request id makes one VM; with another definition it is refused."""
    vm, new = inventory.create(definition(), "r-1", 5)
    again, second = inventory.create(definition(), "r-1", 6)
    assert (new, second) == (True, False)
    assert again is vm
    with pytest.raises(InvalidArgument) as caught:
        inventory.create(definition("other"), "r-1", 7)
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_a_name_is_used_once(inventory: Inventory) -> None:
    """A second VM of the same id is refused."""
    inventory.create(definition(), "", 0)
    with pytest.raises(AlreadyExists) as caught:
        inventory.create(definition(), "", 0)
    assert caught.value.reason == "VM_EXISTS"


def test_a_slot_is_reused_with_a_higher_generation(inventory: Inventory) -> None:
    """After a deletion the next VM gets the slot, and the old handle fits no more."""
    vm, _ = inventory.create(definition(), "", 0)
    inventory.delete(vm)
    other, _ = inventory.create(definition("other"), "", 0)
    assert (vm.slot, vm.generation) == (1, 1)
    assert (other.slot, other.generation) == (1, 2)


def test_vms_are_listed_by_name_in_pages(inventory: Inventory) -> None:
    """A token continues behind the last name, also when that VM is gone."""
    for vm_id in ("c", "a", "b"):
        inventory.create(definition(vm_id), "", 0)
    first, token = inventory.page(2, "")
    assert [vm.definition.vm_id for vm in first] == ["a", "b"]
    inventory.delete(first[1])
    rest, end = inventory.page(2, token)
    assert [vm.definition.vm_id for vm in rest] == ["c"]
    assert end == ""
    with pytest.raises(InvalidArgument) as caught:
        inventory.page(2, "hosts/other/vms/a")
    assert caught.value.reason == "PAGE_TOKEN_INVALID"


def test_unknown_and_malformed_names_differ(inventory: Inventory) -> None:
    """A well-formed name without a VM is not found; anything else is malformed."""
    with pytest.raises(NotFound) as missing:
        inventory.get("hosts/h1/vms/none")
    assert missing.value.reason == "VM_UNKNOWN"
    with pytest.raises(InvalidArgument) as malformed:
        inventory.get("vms/none")
    assert malformed.value.reason == "NAME_MALFORMED"


def test_a_vm_survives_in_the_store(tmp_path: Path) -> None:
    """What was saved comes back equal, crash registers included."""
    registers = Registers(tuple(range(16)), 1, 2, 3, 4, 5, 6, 7, 8, 9, 3)
    verdict = Verdict("TRIPLE_FAULT", "why", True, registers)
    vm = Vm("hosts/h1/vms/a", 3, 4, definition(), 11, "r", State.CRASHED, verdict, 12)
    store = Store(tmp_path / "vms.sqlite")
    store.save(vm)
    store.close()
    assert Store(tmp_path / "vms.sqlite").load() == [vm]


def test_epochs_only_grow(tmp_path: Path) -> None:
    """Each start has a higher epoch than all before, also than one taken meanwhile."""
    store = Store(tmp_path / "vms.sqlite")
    assert store.next_epoch() == 1
    store.save_epoch(9)
    store.save_epoch(3)
    assert store.next_epoch() == 10


def test_the_newest_start_alone_writes(tmp_path: Path) -> None:
    """Once another start has begun, the one before changes nothing any more, whatever epochs it still takes."""
    vm = Vm("hosts/h1/vms/a", 1, 1, definition(), 0, state=State.RUNNING)
    older, newer = Store(tmp_path / "vms.sqlite"), Store(tmp_path / "vms.sqlite")
    older.next_epoch()
    assert older.save(vm)
    newer.next_epoch()
    older.save_epoch(9)
    vm.state = State.CRASHED
    assert not older.save(vm) and not older.delete(vm)
    assert [kept.state for kept in newer.load()] == [State.RUNNING]
    assert newer.save(vm) and newer.delete(vm)


def test_generations_outlive_their_vms(tmp_path: Path) -> None:
    """A deleted VM's generation is remembered, so that its handle never fits again."""
    store = Store(tmp_path / "vms.sqlite")
    vm = Vm("hosts/h1/vms/a", 1, 5, definition(), 0)
    store.save(vm)
    store.delete(vm)
    assert store.load() == []
    assert store.generations() == [(1, 5)]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """A row that cannot be read stops the start with the VM's name."""
    store = Store(tmp_path / "vms.sqlite")
    store.save(Vm("hosts/h1/vms/a", 1, 1, definition(), 0))
    store._db.execute("UPDATE vms SET definition = '{'")
    with pytest.raises(DataLoss, match="hosts/h1/vms/a"):
        store.load()


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    """A file that is no database, and a folder that is not there, have names of their own."""
    (tmp_path / "vms.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataLoss) as broken:
        Store(tmp_path / "vms.sqlite")
    assert broken.value.reason == "STORE_CORRUPT"
    with pytest.raises(Unavailable) as missing:
        Store(tmp_path / "nowhere" / "vms.sqlite")
    assert missing.value.reason == "STORE_UNAVAILABLE"


def test_an_image_is_kept_once_under_its_digest(tmp_path: Path) -> None:
    """The same bytes have one digest; another digest than expected is refused."""
    images = Images(tmp_path)
    digest = images.put(b"kernel")
    assert digest == images.put(b"kernel", digest) == digest_of(b"kernel")
    assert images.get(digest) == b"kernel"
    with pytest.raises(InvalidArgument) as caught:
        images.put(b"kernel", "sha256:" + "0" * 64)
    assert caught.value.reason == "DIGEST_MISMATCH"


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:../../etc/passwd", "", "md5:0"])
def test_an_unknown_digest_reaches_no_file(tmp_path: Path, digest: str) -> None:
    """Only well-formed digests are looked up on disk."""
    with pytest.raises(NotFound) as caught:
        Images(tmp_path).get(digest)
    assert caught.value.reason == "IMAGE_UNKNOWN"


def test_a_changed_image_is_noticed(tmp_path: Path) -> None:
    """Bytes that changed on disk are not booted, and a half-written file is removed at the next start."""
    images = Images(tmp_path)
    digest = images.put(b"kernel")
    images._path(digest).write_bytes(b"kernal")
    with pytest.raises(DataLoss) as caught:
        images.get(digest)
    assert caught.value.reason == "IMAGE_CORRUPT"
    (tmp_path / "sha256" / "left.new").write_bytes(b"half")
    Images(tmp_path)
    assert not (tmp_path / "sha256" / "left.new").exists()
