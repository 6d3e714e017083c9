"""Pages whose commands are run: how they are read, and what counts as the same output."""

from __future__ import annotations

import pytest

from lamina_tools.guide.blocks import Block, PageMalformed, Step, blocks
from lamina_tools.guide.likeness import difference

PAGE = """# A page

<!-- needs: root, busybox -->
<!-- varies: 0x[0-9a-f]+ -->

```console
$ ./run up
$ cat > file <<'END' && \\
  cat file
$ not a command
END
it is there
…
```

```
$ not for the console
```
"""


def test_a_page_is_read_in_steps() -> None:
    """Commands end with their line, their last continued line or their here-document; what follows is their output."""
    (block,) = blocks(PAGE)
    second = Step(8, "cat > file <<'END' && \\\n  cat file\n$ not a command\nEND", ("it is there", "…"))
    assert block == Block(6, (Step(7, "./run up", ()), second), ("root", "busybox"), "", ("0x[0-9a-f]+",))


def test_remarks_belong_to_the_next_block() -> None:
    """A remark holds for the block behind it, not across other text."""
    one = "```console\n$ a\n```\n"
    text = f"<!-- not run: no -->\n{one}{one}<!-- needs: kvm -->\nText.\n{one}"
    assert [(block.not_run, block.needs) for block in blocks(text)] == [("no", ()), ("", ()), ("", ())]


@pytest.mark.parametrize("text", ["```console\noutput\n```\n", "```console\n$ a\n"])
def test_a_block_that_is_none_is_told(text: str) -> None:
    """Output without a command, and a block without an end, are told with their line."""
    with pytest.raises(PageMalformed, match=r"line [12]: "):
        blocks(text)


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("a 3.4 µs later", "a 12 ms later"),
        ("AGE  1h0.000447965s", "AGE  2s"),
        ("hello-fd8d9648b-9drmp  1/1    Running", "hello-0d8d9648b-aaaaa  1/1  Running"),
        ("stack default: process 12896, split", "stack default: process 77, split"),
        ("hardware  127.0.0.1:50051", "hardware  127.0.0.1:20011"),
        ("one … three", "one two, or so, three"),
        ("frame 0x1d of 8", "frame 0xffe of 8"),
    ],
)
def test_what_is_never_twice_the_same_matches(said: str, printed: str) -> None:
    """Times, names that are drawn, processes, ports, columns' widths and what the page leaves open may differ."""
    assert difference([said], [printed], ["0x[0-9a-f]+"]) == ""


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        (["12 frames written"], ["13 frames written"]),
        (["a"], ["a", "b"]),
        (["a", "b"], ["a"]),
        (["a", "…", "c", "…"], ["b", "a", "c"]),
        (["…", "b", "c"], ["a", "b", "c", "d"]),
        (["a", "…", "b", "c"], ["a", "b", "x", "c"]),
        (["b", "…", "a"], ["a", "b"]),
        (["a", "…", "a"], ["a"]),
        (["02:00:00:00:0a:11  -"], ["02:00:00:00:0a:12  -"]),
    ],
)
def test_what_differs_is_told(said: list[str], printed: list[str]) -> None:
    """Other figures, lines too many, too few or in another order are a difference, which shows both sides."""
    told = difference(said, printed)
    assert "the page says:" in told and "printed, from line " in told


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        (["a", "…"], ["a", "b", "c"]),
        (["…", "c"], ["a", "b", "c"]),
        (["…", "b", "…"], ["a", "b", "c"]),
        (["   …", "a", "…", "b"], ["a", "b"]),
        (["…"], []),
    ],
)
def test_lines_may_be_left_out(said: list[str], printed: list[str]) -> None:
    """`…` alone on a line stands for any number of lines, and for none."""
    assert difference(said, printed) == ""
