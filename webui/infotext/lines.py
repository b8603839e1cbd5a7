"""The lines of a parameters text: prompt, negative prompt, and where the settings line is."""

from __future__ import annotations

NEGATIVE_MARK = "Negative prompt:"


def split_prompts(lines: list[str]) -> tuple[str, str]:
    """(prompt, negative prompt) of the lines before the settings line.

    Lines are stripped; the mark at the beginning of a line switches to the negative prompt, also on the first line.
    Empty lines before the first word of a prompt are left out, those inside are kept.
    """
    prompt: list[str] = []
    negative: list[str] = []
    current = prompt
    for line in lines:
        line = line.strip()
        if line.startswith(NEGATIVE_MARK):
            current = negative
            line = line.removeprefix(NEGATIVE_MARK).strip()
        if line or current:
            current.append(line)
    return "\n".join(prompt), "\n".join(negative)
