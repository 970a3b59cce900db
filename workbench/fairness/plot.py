"""Dots with intervals: one row a group, one panel a metric, as inline SVG without scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import ceil, floor, log10

from .results import AttributeResult, Estimate, interval_text

PANEL, GAP, ROW, TOP, BOTTOM = 158, 22, 24, 34, 30
TEXT_WIDTH = 6.4  # pixels a character at 12 px, on average


def dot_plot(
    found: AttributeResult, overall: Sequence[Estimate], metrics: Sequence[str], *, most: int = 40
) -> str:
    """Return the SVG of ``metrics`` (names as in the estimates) for the groups of ``found``.

    Each dot is an estimate, each line its interval, the dashed line the value over all rows. Colours
    come from the page (classes ``dot``, ``line``, ``whole``, ``grid``, ``mute``), so that it follows
    light, dark and print. Only the ``most`` largest groups are drawn.

    Example:
        >>> one = Estimate(metric="accuracy", value=0.5, low=0.2, high=0.8, n=6)
        >>> from workbench.fairness.results import GroupResult
        >>> group = GroupResult(group="F", levels=("F",), rows=6, unlabelled=0, cells={},
        ...                     estimates=(one,))
        >>> sexes = AttributeResult(attribute="sex", columns=("sex",), rule="", unseen=(),
        ...                         groups=(group,), disparities=())
        >>> dot_plot(sexes, [one], ["accuracy"]).startswith("<svg")
        True
    """
    largest = sorted(found.groups, key=lambda group: -group.rows)[:most]
    groups = [group for group in found.groups if group in largest]
    labels = [_short(group.group) for group in groups]
    counts = [f"{group.rows:,}" for group in groups]
    margin = round(max(map(len, labels)) * TEXT_WIDTH + max(map(len, counts)) * TEXT_WIDTH + 30)
    panel = PANEL if len(metrics) > 2 else 2 * PANEL
    width = margin + len(metrics) * (panel + GAP)
    bottom = TOP + len(groups) * ROW
    parts = [
        _text(margin - 12, TOP - 12, "rows", "mute end"),
        *_names([group.group for group in groups], labels, counts, margin, width),
    ]
    for index, metric in enumerate(metrics):
        left = margin + index * (panel + GAP)
        rows = [group.estimate(metric) for group in groups]
        whole = next(estimate for estimate in overall if estimate.metric == metric)
        parts += _panel(metric, rows, [group.group for group in groups], whole, left, panel, bottom)
    title = f"{', '.join(readable(metric) for metric in metrics)} by {found.attribute}"
    return (
        f'<svg class="plot" viewBox="0 0 {width} {bottom + BOTTOM}" width="{width}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}; the figures are in the table below'
        f"</title>{''.join(parts)}</svg>"
    )


def readable(metric: str) -> str:
    """Return a metric's name as words.

    Example:
        >>> readable("true_positive_rate"), readable("roc_auc")
        ('true positive rate', 'ROC AUC')
    """
    return metric.replace("_", " ").replace("roc auc", "ROC AUC")


def axis(low: float, high: float) -> tuple[float, float, float]:
    """Return start, end and step of an axis with 2 to 6 round steps that holds ``[low, high]``.

    Example:
        >>> axis(0.13, 0.58)
        (0.0, 0.6, 0.2)
    """
    span = max(high - low, 1e-9 * max(abs(high), 1.0), 1e-300)
    step = next(
        base * 10.0 ** (floor(log10(span)) + power)
        for power in (-1, 0, 1)
        for base in (1, 2, 5)
        if span / (base * 10.0 ** (floor(log10(span)) + power)) <= 4
    )
    start, end = floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step
    return round(start, 12), round(end if end > start else start + step, 12), step


def _names(
    full: list[str], labels: list[str], counts: list[str], margin: int, width: int
) -> list[str]:
    parts = []
    for index, (label, count) in enumerate(zip(labels, counts, strict=True)):
        y = TOP + index * ROW
        if index % 2 == 0:
            parts.append(f'<rect class="band" x="0" y="{y}" width="{width}" height="{ROW}"/>')
        parts.append(_text(4, y + 16, label, "", title=full[index]))
        parts.append(_text(margin - 12, y + 16, count, "mute end"))
    return parts


def _panel(
    metric: str,
    rows: list[Estimate],
    names: list[str],
    whole: Estimate,
    left: int,
    panel: int,
    bottom: int,
) -> list[str]:
    ends = [end for row in (*rows, whole) for end in (row.low, row.value, row.high)]
    seen = [end for end in ends if end is not None] or [0.0, 1.0]
    start, end, step = axis(min(seen), max(seen))

    def x(value: float) -> float:
        return round(left + 6 + (value - start) / (end - start) * (panel - 12), 1)

    parts = [_text(left + panel / 2, TOP - 12, readable(metric), "head middle")]
    for tick in range(round((end - start) / step) + 1):
        at = x(start + tick * step)
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(_text(at, bottom + 16, f"{start + tick * step:.6g}", "mute middle tick"))
    if whole.value is not None:
        at = x(whole.value)
        parts.append(f'<line class="whole" x1="{at}" x2="{at}" y1="{TOP}" y2="{bottom}"/>')
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        y = TOP + index * ROW + ROW / 2
        parts.append(_mark(row, name, y, x, (start, end), left + panel / 2))
    return parts


def _mark(
    row: Estimate,
    name: str,
    y: float,
    x: Callable[[float], float],
    span: tuple[float, float],
    middle: float,
) -> str:
    if row.value is None:
        return _text(middle, y + 4, row.reason, "mute middle undefined")
    low = span[0] if row.low is None else row.low
    high = span[1] if row.high is None else row.high
    tip = f"{name}: {row.value:.4g} {interval_text(row.low, row.high)}, n {row.n:,}"
    ends = "".join(
        f'<line class="line" x1="{x(stop)}" x2="{x(stop)}" y1="{y - 4}" y2="{y + 4}"/>'
        for stop, known in ((low, row.low), (high, row.high))
        if known is not None
    )
    return (
        f"<g><title>{escape(tip)}</title>"
        f'<line class="line" x1="{x(low)}" x2="{x(high)}" y1="{y}" y2="{y}"/>{ends}'
        f'<circle class="dot" cx="{x(row.value)}" cy="{y}" r="4"/></g>'
    )


def _text(x: float, y: float, text: str, kind: str, *, title: str = "") -> str:
    tip = f"<title>{escape(title)}</title>" if title and title != text else ""
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(text)}{tip}</text>'


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
