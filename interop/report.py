"""The table of both answers, and the verdict."""

import json
import textwrap

WIDTHS = (34, 40, 40, 44)


def text(answer):
    return answer if isinstance(answer, str) else json.dumps(answer)


def row(*cells):
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS)]
    for i in range(max(map(len, wrapped))):
        print(" | ".join((lines[i] if i < len(lines) else "").ljust(width)
                         for lines, width in zip(wrapped, WIDTHS)).rstrip())
    print("-+-".join("-" * width for width in WIDTHS[:len(cells)]))


def expected(step):
    return getattr(step.expect, "text", None) or text(step.expect)
