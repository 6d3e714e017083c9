"""Every style rule finds what it is for, and leaves alone what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina_tools.style import layers, modules, tests
from lamina_tools.style.source import Rule, Source

PURE = "services/mmu/lamina_mmu/domain/x.py"
SERVER = "services/mmu/lamina_mmu/server.py"
MODULE = "kit/lamina_kit/x.py"
INIT = "kit/lamina_kit/__init__.py"
TEST = "tests/unit/mmu/test_x.py"
LONG_BODY = "def f():\n" + "    x = 1\n" * 61
SHORT_RPC = "class S(mmu_pb2_grpc.SpacesServicer):\n    async def GetSpace(self, r, c):\n" + "        x = 1\n" * 10
LONG_RPC = SHORT_RPC + "        x = 1\n"
HANDLER = "try:\n    f()\nexcept {}:\n    {}\n"

FOUND = [
    (modules.init_says_what_lives_here, INIT, "from x import y\n"),
    (modules.init_says_what_lives_here, INIT, ""),
    (modules.init_says_what_lives_here, INIT, '"""What lives here."""\nfrom x import y\n'),
    (modules.init_says_what_lives_here, INIT, '"""What lives here"""\n'),
    (modules.init_says_what_lives_here, INIT, '"""What lives here. And more."""\n'),
    (modules.init_says_what_lives_here, INIT, '"""What lives\nhere."""\n'),
    (modules.init_says_what_lives_here, INIT, '# A remark.\n"""What lives here."""\n'),
    (modules.module_is_short, MODULE, "x = 1\n" * 401),
    (modules.functions_are_short, MODULE, LONG_BODY),
    (modules.name_says_something, "kit/lamina_kit/utils.py", ""),
    (modules.name_says_something, "kit/lamina_kit/helpers/x.py", ""),
    (modules.annotations_are_postponed, MODULE, '"""Doc."""\nx = 1\n'),
    (modules.public_things_are_documented, MODULE, "x = 1\n"),
    (modules.public_things_are_documented, MODULE, '"""Doc."""\nclass A:\n    x = 1\n'),
    (modules.nothing_is_swallowed, MODULE, HANDLER.format("", "raise")),
    (modules.nothing_is_swallowed, MODULE, HANDLER.format("OSError", "pass")),
    (modules.nothing_is_swallowed, MODULE, HANDLER.format("BaseException", "log()")),
    (modules.nothing_is_swallowed, MODULE, "with contextlib.suppress(Exception):\n    f()\n"),
    (modules.nothing_is_left_out, MODULE, "class A:\n    def f(self): ...\n"),
    (layers.pure_code_is_pure, PURE, "open('x')\n"),
    (layers.pure_code_is_pure, PURE, "x = np.random.rand()\n"),
    (layers.pure_code_is_pure, "services/mmu/lamina_mmu/engines/model/x.py", "x = id(y)\n"),
    (layers.sets_are_not_iterated, PURE, "for x in set(y):\n    f(x)\n"),
    (layers.sets_are_not_iterated, PURE, "x = [y for y in {1, 2}]\n"),
    (layers.sets_are_not_iterated, PURE, "x = list(frozenset(y))\n"),
    (layers.servers_only_translate, SERVER, LONG_RPC),
    (layers.errors_are_the_kit_s, SERVER, "raise RuntimeError('x')\n"),
    (layers.errors_are_the_kit_s, PURE, "raise ValueError\n"),
    (layers.reasons_are_upper_snake, SERVER, "raise errors.NotFound('x', reason='space-unknown')\n"),
    (tests.tests_are_documented, TEST, "def test_x():\n    assert f()\n"),
    (tests.tests_are_documented, TEST, 'def test_x():\n    """Two.\n\n    Parts."""\n'),
    (tests.tests_can_fail, TEST, "def test_x():\n    f()\n"),
    (tests.tests_can_fail, TEST, "def test_x():\n    assert True\n"),
    (tests.tests_do_not_sleep, TEST, "time.sleep(1)\n"),
    (tests.tests_do_not_sleep, TEST, "async def f():\n    await asyncio.sleep(0.1)\n"),
    (tests.skips_say_why, TEST, "@pytest.mark.skip\ndef test_x():\n    assert f()\n"),
    (tests.tests_do_not_sleep, "tests/simulation/test_x.py", "time.sleep(1)\n"),
    (tests.skips_say_why, TEST, "pytest.skip()\n"),
    (tests.skips_say_why, TEST, "@pytest.mark.xfail(strict=True)\ndef test_x():\n    assert f()\n"),
]

RIGHT = [
    (modules.init_says_what_lives_here, INIT, '"""Calls: what lives here, and lamina.toml."""\n'),
    (modules.init_says_what_lives_here, MODULE, "x = 1\n"),
    (modules.module_is_short, MODULE, '"""Doc.\n\nLonger than 400 lines\nbecause tables.\n"""\n' + "x = 1\n" * 401),
    (modules.functions_are_short, MODULE, 'def f():\n    """' + "x\n" * 80 + '"""\n    return 1\n'),
    (modules.name_says_something, "kit/lamina_kit/bus/memory.py", ""),
    (modules.annotations_are_postponed, INIT, '"""What lives here."""\n'),
    (modules.public_things_are_documented, MODULE, '"""Doc."""\ndef _f():\n    return 1\n'),
    (modules.nothing_is_swallowed, MODULE, HANDLER.format("OSError as error", "log(error)")),
    (modules.nothing_is_swallowed, MODULE, HANDLER.format("BaseException as error", "step.throw(error)")),
    (modules.nothing_is_swallowed, MODULE, "with contextlib.suppress(ProcessLookupError):\n    f()\n"),
    (modules.nothing_is_left_out, MODULE, "class A(Protocol):\n    def f(self): ...\n"),
    (modules.nothing_is_left_out, MODULE, 'class A:\n    def f(self):\n        """Nothing to stop."""\n'),
    (layers.pure_code_is_pure, "services/mmu/lamina_mmu/io/x.py", "open('x')\n"),
    (layers.pure_code_is_pure, PURE, "port.open('x')\n"),
    (layers.sets_are_not_iterated, PURE, "for x in sorted(set(y)):\n    f(x)\n"),
    (layers.servers_only_translate, SERVER, SHORT_RPC),
    (layers.errors_are_the_kit_s, PURE, '"""Raises ValueError for text that is no quantity."""\nraise ValueError\n'),
    (layers.errors_are_the_kit_s, "cli/lamina_cli/x.py", "raise ValueError\n"),
    (layers.reasons_are_upper_snake, SERVER, "raise errors.NotFound('x', reason='SPACE_UNKNOWN_2')\n"),
    (tests.tests_are_documented, TEST, 'def test_x():\n    """One sentence\n    on two lines."""\n'),
    (tests.tests_can_fail, TEST, "def test_x():\n    with pytest.raises(ValueError):\n        f()\n"),
    (tests.tests_can_fail, TEST, "def test_x():\n    check_space(f())\n"),
    (tests.tests_can_fail, TEST, "def same(x):\n    assert x\ndef test_x():\n    same(f())\n"),
    (tests.tests_do_not_sleep, TEST, "async def f():\n    await asyncio.sleep(0)\n"),
    (tests.tests_do_not_sleep, "tests/simulation/test_x.py", "async def f():\n    await asyncio.sleep(1)\n"),
    (tests.skips_say_why, TEST, "pytest.skip('needs root')\n"),
    (tests.skips_say_why, TEST, "@pytest.mark.skipif(x, reason='y')\ndef test_x():\n    assert f()\n"),
]


def name(value: object) -> str | None:
    """Names a case after its rule."""
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("rule", "path", "text"), FOUND, ids=name)
def test_rules_find(rule: Rule, path: str, text: str) -> None:
    """A rule finds what it forbids, and says where."""
    findings = list(rule(Source(Path(path), text)))
    assert findings
    assert all(finding.startswith(f"{path}:") for finding in findings)


@pytest.mark.parametrize(("rule", "path", "text"), RIGHT, ids=name)
def test_rules_leave_alone(rule: Rule, path: str, text: str) -> None:
    """A rule leaves alone what is right."""
    assert list(rule(Source(Path(path), text))) == []


def test_every_rule_is_shown_finding_something() -> None:
    """No rule is without a case that it finds and one that it leaves alone."""
    rules = {*modules.RULES, *layers.RULES, *tests.RULES}
    assert {rule for rule, _, _ in FOUND} == rules
    assert {rule for rule, _, _ in RIGHT} == rules
