"""What a visitor has here, as HTML: their videos and the people that were learned; every button names what it does and
to which.

A click is handed to the page's hidden button `dp-act` by the script in `page`, as JSON: {"do": ..., "id": ..., "name":
...}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape

from ..jobs.records import JobStatus, SubjectEntry
from .again import better

WORDS = {
    "done": "Finished",
    "failed": "Did not work",
    "cancelled": "Stopped",
    "queued": "Waiting",
    "interrupted": "Paused",
}
THINGS = {  # beside the MP4: what they are called, and what they are
    "side_by_side": ("Side by side", "MP4: photo, motion and video beside each other"),
    "gif": ("GIF", "A small moving picture"),
    "frames": ("Frames", "Every frame as PNG, in a zip"),
    "motion": ("Motion", "The motion as .npz, to be used again"),
    "settings": ("Settings", "What was asked for and used, as JSON"),
}

Link = Callable[[str, str], str]
"""(whose, thing) -> a fresh link."""


def job_name(status: JobStatus, number: int) -> str:
    """What its owner calls the job, else its number."""
    return status.name or f"Video {number}"


def shelf(
    jobs: list[tuple[JobStatus, float]], subjects: Iterable[SubjectEntry], shown: str | None, link: Link, now: float
) -> str:
    """Jobs, newest first, with their sizes in MB, and subjects; nothing where there is neither. shown: the job that is
    looked at."""
    cards = "".join(_job_card(status, len(jobs) - i, size, shown, link, now) for i, (status, size) in enumerate(jobs))
    people = "".join(_subject_card(subject, link, now) for subject in subjects)
    parts = []
    if cards:
        parts.append(f'<h3>Your videos</h3><ul class="dp-shelf" data-jobs="{len(jobs)}">{cards}</ul>')
    if people:
        about = "They are kept, so another motion of the same person starts at once."
        parts.append(
            f'<h3>People that were learned</h3><p class="dp-quiet">{about}</p><ul class="dp-shelf">{people}</ul>'
        )
    return f"<h2>5 · Yours</h2>{''.join(parts)}" if parts else ""


def _job_card(status: JobStatus, number: int, size_mb: float, shown: str | None, link: Link, now: float) -> str:
    name = job_name(status, number)
    read = status.request is not None and status.request.image is not None and status.request.image.exists()
    picture = "first" if status.frames else "photo" if read else None
    buttons = [_button("open", status.id, "Show", name, status.id == shown)]
    if status.request is not None and status.final:
        buttons.append(_button("again", status.id, "Again", name))
        if status.request.poses is not None and status.request.poses.exists():
            buttons.append(_button("motion", status.id, "Its motion", name))
    if status.state == "done" and shown is not None and status.id != shown:
        buttons.append(_button("compare", status.id, "Compare", name))
    buttons += [_button("rename", status.id, "Rename", name), _button("delete", status.id, "Delete", name)]
    detail = " · ".join([WORDS.get(status.state, "Working"), ago(now - status.created), size(size_mb)])
    return _card(link(status.id, picture) if picture else None, name, detail, buttons, status.id == shown)


def _subject_card(subject: SubjectEntry, link: Link, now: float) -> str:
    how = "as in the paper" if subject.recipe == "paper" else "quickly"
    how += f" from {1 + len(subject.more)} photos" if subject.more else ""
    detail = " · ".join([f"Learned {how}", f"used {ago(now - subject.used)}", size(subject.size_mb)])
    buttons = [
        _button("use", subject.key, "Use with another motion", ""),
        f'<a href="{escape(link(subject.whose, "subject"))}" download>Download</a>',
        _button("forget", subject.key, "Delete", "this person"),
    ]
    return _card(link(subject.whose, "person"), "", detail, buttons, False)


def _card(picture: str | None, name: str, detail: str, buttons: list[str], current: bool) -> str:
    image = f'<img src="{escape(picture)}" alt="" loading="lazy">' if picture else '<span class="dp-no-picture"></span>'
    title = f"<strong>{escape(name)}</strong>" if name else ""
    return (
        f'<li class="dp-item"{" aria-current=true" if current else ""}>{image}<div>{title}<p '
        f'class="dp-quiet">{escape(detail)}</p>'
        f'<div class="dp-buttons">{"".join(buttons)}</div></div></li>'
    )


def _button(do: str, what: str, words: str, of: str, pressed: bool = False) -> str:
    label = f' aria-label="{escape(words)}: {escape(of)}"' if of else ""
    return (
        f'<button type="button" data-do="{do}" data-id="{escape(what)}" data-name="{escape(of)}"{label}'
        f"{' disabled' if pressed else ''}>{escape(words)}</button>"
    )


def things(status: JobStatus, link: Callable[[JobStatus, str], str]) -> str:
    """Links to all that can be kept beside the MP4, as `link` gives them; and a button that makes the same in the next
    quality."""
    items = [
        f'<a href="{escape(link(status, thing))}&amp;download=1" title="{about}" download>{words}</a>'
        for thing, (words, about) in THINGS.items()
        if thing in status.things
    ]
    found = f'<p class="dp-things">{"".join(items)}</p>' if items else ""
    if status.state == "done" and status.request is not None and better(status.request) is not None:
        found += f'<div class="dp-buttons">{_button("better", status.id, "The same in better quality", "")}</div>'
    return found


def compared(left: tuple[str, str], right: tuple[str, str]) -> str:
    """Two videos, each (name, link), one over the other; a slider says where one ends and the other begins."""
    videos = "".join(
        f'<video src="{escape(link)}" muted loop autoplay playsinline aria-label="{escape(name)}"></video>'
        for name, link in (left, right)
    )
    slide = "this.parentElement.style.setProperty('--cut', this.value + '%')"
    return (
        f'<figure class="dp-compare"><div style="--cut: 50%">{videos}'
        '<input type="range" min="0" max="100" value="50" aria-label="Where one video ends and the other '
        f'begins" oninput="{slide}"></div>'
        f"<figcaption><span>{escape(left[0])}</span><span>{escape(right[0])}</span></figcaption></figure>"
    )


def size(size_mb: float) -> str:
    return f"{size_mb:.0f} MB" if size_mb >= 9.5 else f"{size_mb:.1f} MB"


def ago(seconds: float) -> str:
    """How long ago something was, in words."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
