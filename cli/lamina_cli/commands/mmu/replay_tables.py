"""What a replay printed: results, explanations and curves as tables, as JSON, and as a drawing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina_cli.output import printing
from lamina_kit.errors import InvalidArgument

if TYPE_CHECKING:
    from lamina.mmu.v1 import replay_pb2 as pb

SHOWN_POINTS = 24
"""Points of a curve that a table shows."""
PLOTS = (".svg", ".png")


@dataclass
class Answers:
    """Results, explanations, and the pieces of each policy's curve."""

    results: list[pb.ReplayResult]
    explanations: list[pb.ReplayExplanation]
    curves: dict[str, list[pb.MissRatioCurve]]


def show(answers: Answers, opening: pb.ReplayOpen, *, form: str) -> None:
    """Prints what came out."""
    if form == "json":
        printing.as_json(as_dict(answers, opening))
        return
    with_tlb = opening.HasField("tlb")
    headers = ("POLICY", "FRAMES", "ACCESSES", "HITS", "MISSES", "MISS RATIO", "COLD", "EVICTIONS", "WRITE-BACKS")
    more = ("TLB HITS", "2ND LEVEL", "TLB MISSES") if with_tlb else ()
    printing.table((*headers, *more), (_row(result, with_tlb) for result in answers.results))
    if any(result.truncated for result in answers.results):
        print("\nThe trace was cut off: this is what was there.")
    for policy, frames, evictions in _joined(answers.explanations):
        print(f"\n{policy}, {frames:,} frames: the first evictions, beside the best choice from the same frames")
        columns = ("ACCESS", "COMES", "GOES", "USED AGAIN", "BEST", "USED AGAIN", "WHY IT WENT")
        printing.table(columns, (_eviction(one) for one in evictions))
    for policy, pieces in answers.curves.items():
        frames_of, misses, accesses = points(pieces)
        print(f"\n{policy}: misses of {accesses:,} accesses by number of frames")
        printing.table(("FRAMES", "MISSES", "MISS RATIO"), _some(frames_of, misses, accesses))


def _row(result: pb.ReplayResult, with_tlb: bool) -> tuple[object, ...]:
    ratio = result.misses / result.accesses if result.accesses else 0.0
    row = (
        result.policy,
        result.frames,
        result.accesses,
        result.hits,
        result.misses,
        f"{ratio:.4f}",
        result.cold_misses,
        result.evictions,
        result.write_backs,
    )
    return (*row, result.tlb_hits, result.tlb_second_hits, result.tlb_misses) if with_tlb else row


def _joined(explanations: list[pb.ReplayExplanation]) -> list[tuple[str, int, list[pb.ReplayEviction]]]:
    """Returns the pieces of each explanation as one."""
    joined: dict[tuple[str, int], list[pb.ReplayEviction]] = {}
    for piece in explanations:
        joined.setdefault((piece.policy, piece.frames), []).extend(piece.evictions)
    return [(policy, frames, evictions) for (policy, frames), evictions in joined.items()]


def _eviction(one: pb.ReplayEviction) -> tuple[object, ...]:
    return (
        one.access,
        f"{one.incoming_page:#x}",
        f"{one.page:#x}",
        _again(one.next_use),
        "the same" if one.best_page == one.page else f"{one.best_page:#x}",
        _again(one.best_next_use),
        one.reason,
    )


def _again(accesses: int) -> str:
    return "never" if accesses < 0 else f"in {accesses:,}"


def points(pieces: list[pb.MissRatioCurve]) -> tuple[list[int], list[int], int]:
    """Returns numbers of frames, misses and accesses of a curve from its pieces."""
    frames = [value for piece in pieces for value in piece.frames]
    misses = [value for piece in pieces for value in piece.misses]
    return frames, misses, pieces[0].accesses


def _some(frames: list[int], misses: list[int], accesses: int) -> list[tuple[object, ...]]:
    """Returns rows for a table, spread over the curve."""
    last = len(frames) - 1
    shown = min(SHOWN_POINTS, len(frames))
    places = dict.fromkeys(last * index // max(1, shown - 1) for index in range(shown))
    return [(frames[at], misses[at], f"{misses[at] / accesses:.4f}" if accesses else "-") for at in places]


RESULT_FIELDS = (
    "policy", "frames", "accesses", "hits", "misses", "cold_misses", "evictions", "write_backs", "distinct_pages",
    "truncated",
)  # fmt: skip
TLB_FIELDS = ("tlb_hits", "tlb_second_hits", "tlb_misses")
EVICTION_FIELDS = ("access", "incoming_page", "page", "reason", "next_use", "best_page", "best_next_use")


def as_dict(answers: Answers, opening: pb.ReplayOpen) -> dict[str, Any]:
    """Returns what came out for programs, numbers as numbers; explanations and curves only where they were wanted."""
    fields = (*RESULT_FIELDS, *TLB_FIELDS) if opening.HasField("tlb") else RESULT_FIELDS
    found: dict[str, Any] = {
        "results": [{name: getattr(result, name) for name in fields} for result in answers.results]
    }
    if opening.explain_evictions:
        found["explanations"] = [
            {
                "policy": policy,
                "frames": frames,
                "evictions": [{name: getattr(one, name) for name in EVICTION_FIELDS} for one in evictions],
            }
            for policy, frames, evictions in _joined(answers.explanations)
        ]
    if opening.HasField("curve"):
        curves = {policy: points(pieces) for policy, pieces in answers.curves.items()}
        found["curves"] = [
            {"policy": policy, "accesses": accesses, "frames": frames, "misses": misses}
            for policy, (frames, misses, accesses) in curves.items()
        ]
    return found


def check_plot(name: str) -> None:
    """Refuses a drawing that is neither SVG nor PNG, before any work."""
    if Path(name).suffix.lower() not in PLOTS:
        raise InvalidArgument(
            f"{name} is neither an .svg nor a .png file",
            reason="PLOT_FORMAT_UNKNOWN",
            next_step="name the drawing FILE.svg or FILE.png",
        )


def plot(name: str, answers: Answers) -> None:
    """Draws the miss ratios into a file."""
    from lamina_cli.output.drawing import chart, png, svg

    series = []
    for policy, pieces in answers.curves.items():
        frames, misses, accesses = points(pieces)
        ratios = [miss / accesses if accesses else 0.0 for miss in misses]
        series.append(chart.Series(policy, tuple(zip(map(float, frames), ratios, strict=True))))
    picture = chart.lines("Miss ratio by memory", "frames", "miss ratio", series)
    path = Path(name)
    try:
        if path.suffix.lower() == ".svg":
            path.write_text(svg.draw(picture))
        else:
            path.write_bytes(png.draw(picture))
    except OSError as error:
        raise InvalidArgument(
            f"{name} cannot be written: {error.strerror}", reason="PLOT_UNWRITABLE", next_step="name another file"
        ) from error
