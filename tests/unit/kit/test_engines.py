"""The engine registry and the supported sets."""

from __future__ import annotations

from importlib import metadata
from typing import ClassVar

import pytest

from lamina_kit import engines
from lamina_kit.errors import FailedPrecondition, InvalidArgument


class Working:
    """An engine that runs anywhere."""

    @classmethod
    def missing(cls) -> list[str]:
        """Lacks nothing."""
        return []


class Broken:
    """An engine that cannot run."""

    reasons: ClassVar[list[str]] = ["/dev/kvm is not there", "the CPU has no VMX"]

    @classmethod
    def missing(cls) -> list[str]:
        """Lacks two things."""
        return cls.reasons


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers two engines for the hardware layer."""
    points = [
        metadata.EntryPoint("model", f"{__name__}:Working", engines.GROUP + "hardware"),
        metadata.EntryPoint("broken", f"{__name__}:Broken", engines.GROUP + "hardware"),
    ]
    classes = {"model": Working, "broken": Broken}
    monkeypatch.setattr(metadata.EntryPoint, "load", lambda point: classes[point.name])
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == points[0].group else [])


@pytest.mark.usefixtures("installed")
def test_engines_are_listed_by_name() -> None:
    """The order is alphabetical, whatever the order of installation."""
    assert list(engines.engines_of("hardware")) == ["broken", "model"]
    assert engines.engines_of("mmu") == {}


@pytest.mark.usefixtures("installed")
def test_an_engine_that_can_run_is_loaded() -> None:
    """The class behind the entry point comes back."""
    assert engines.load_engine("hardware", "model") is Working


@pytest.mark.usefixtures("installed")
def test_an_unknown_engine_names_the_known() -> None:
    """ENGINE_UNKNOWN lists what is installed."""
    with pytest.raises(InvalidArgument, match="broken, model") as caught:
        engines.load_engine("hardware", "turbo")
    assert caught.value.reason == "ENGINE_UNKNOWN"
    with pytest.raises(InvalidArgument) as caught:
        engines.load_engine("quantum", "model")
    assert caught.value.reason == "LAYER_UNKNOWN"


@pytest.mark.usefixtures("installed")
def test_an_engine_that_cannot_run_says_why() -> None:
    """ENGINE_CANNOT_RUN gives every reason, and no other engine is taken instead."""
    with pytest.raises(FailedPrecondition) as caught:
        engines.load_engine("hardware", "broken")
    assert caught.value.reason == "ENGINE_CANNOT_RUN"
    for reason in Broken.reasons:
        assert reason in caught.value.message


@pytest.mark.parametrize("name", ["model", "kvm", "linux"])
def test_each_supported_set_is_accepted(name: str) -> None:
    """A whole set, and a part of it that names its first layer, are that set."""
    assert engines.check_set(engines.SETS[name]) == name
    assert engines.check_set({"hardware": engines.SETS[name]["hardware"]}) == name


@pytest.mark.parametrize(
    "choice",
    [
        {"hardware": "kvm", "mmu": "linux"},
        {"hardware": "model", "mmu": "linux"},
        {"hardware": "kvm", "container-runtime": "model"},
        {"hardware": "linux", "hypervisor": "model"},
        {"hardware": "turbo"},
    ],
)
def test_other_mixes_are_refused(choice: dict[str, str]) -> None:
    """A mix outside the sets names the choice and the sets."""
    with pytest.raises(InvalidArgument, match="model, kvm, linux") as caught:
        engines.check_set(choice)
    assert caught.value.reason == "ENGINE_SET_UNSUPPORTED"
    assert f"hardware={choice['hardware']}" in caught.value.message


def test_a_layer_that_does_not_exist_is_refused() -> None:
    """A misspelt layer is not silently left out."""
    with pytest.raises(InvalidArgument) as caught:
        engines.check_set({"hardwear": "model"})
    assert caught.value.reason == "LAYER_UNKNOWN"
