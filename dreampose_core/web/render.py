"""Job states as HTML: pure functions from records to text, everything that varies escaped."""

from __future__ import annotations

import base64
from contextlib import suppress
from html import escape

from ..jobs.records import JobStatus, Timing

STAGES = (("check", "Check files"), ("learn", "Learn person"), ("frames", "Make frames"), ("video", "Write video"))
_STAGE_OF = {"tuning": "learn", "decoder": "learn", "frames": "frames", "video": "video"}
_SENTENCES = {
    "tuning": "Learning the person",
    "decoder": "Learning the details",
    "frames": "Making the frames",
    "video": "Writing the video",
}
_UNITS = {"tuning": "step", "decoder": "step", "frames": "frame", "video": "frame"}


def error_box(sentence: str | None) -> str:
    """The sentence as an alert that stays in the page; nothing for None."""
    return f'<p class="dp-error" role="alert">{escape(sentence)}</p>' if sentence else ""


def status_card(status: JobStatus, live: bool = True) -> str:
    """Where the job stands: headline, detail, stages, progress bar; of the same height while it changes.

    live: whether there is something to play; style.css shows the player accordingly.
    """
    headline, detail = _words(status)
    card = [
        f'<div class="dp-card" data-job="{escape(status.id)}" data-state="{escape(status.state)}" '
        f'data-frames="{len(status.frames)}"'
        f' data-live="{live}">',
        f'<p class="dp-headline" role="status">{escape(headline)}</p>',
        f'<p class="dp-detail">{escape(detail) or "&nbsp;"}</p>',
        _bar(status),
        _stages(status),
        "</div>",
    ]
    if status.state == "failed" or status.error:
        card.append(error_box(status.error or "The job failed; try again."))
    if status.notices:
        card.append(
            '<ul class="dp-notices">' + "".join(f"<li>{escape(notice)}</li>" for notice in status.notices) + "</ul>"
        )
    return "".join(card)


def loss_curve(status: JobStatus) -> str:
    """The tuning's loss, smoothed, as a small drawing with its first and last value.

    Before there are two values its place is kept, so that nothing moves when they come; nothing where nothing is tuned.
    """
    losses = status.losses
    if len(losses) < 2:
        return _loss_figure("", "The training loss appears here") if _learns(status) and not status.final else ""
    smooth, value = [], losses[0]
    for loss in losses:
        value = 0.85 * value + 0.15 * loss
        smooth.append(value)
    low, high = min(smooth), max(smooth)
    height = high - low or 1.0
    points = " ".join(
        f"{300 * i / (len(smooth) - 1):.1f},{56 - 52 * (v - low) / height:.1f}" for i, v in enumerate(smooth)
    )
    words = f"How far off it is while it learns, from {smooth[0]:.3g} to {smooth[-1]:.3g}; it need not fall all the way"
    return _loss_figure(f'<polyline points="{points}"/>', words)


def _loss_figure(drawing: str, words: str) -> str:
    return (
        '<figure class="dp-loss"><svg viewBox="0 0 300 60" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}">{drawing}</svg>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def samples(status: JobStatus) -> str:
    """What the model made of the person while it learned them, in a row, with the number of steps below each.

    As for the loss, their place is kept before there are any.
    """
    pictures = []
    for path in status.samples:
        with suppress(FileNotFoundError):  # the job has just been deleted
            picture, step = base64.b64encode(path.read_bytes()).decode(), int(path.stem)
            image = f'<img src="data:image/png;base64,{picture}" alt="What came out after {step} steps of learning">'
            pictures.append(f"<li>{image}<span>step {step}</span></li>")
    if not pictures and (status.final or not _learns(status)):
        return ""
    words = "What it makes of the person so far" if pictures else "What it makes of the person appears here"
    return f'<figure class="dp-samples"><ol>{"".join(pictures)}</ol><figcaption>{words}</figcaption></figure>'


def _learns(status: JobStatus) -> bool:
    return status.request is None or status.request.options.recipe != "none"


def result_player(link: str) -> str:
    """The finished video; when its link has expired by the time it is played, the player takes the newest download
    link."""
    retry = (
        "if(!this.dataset.again){this.dataset.again=1;this.src=document.querySelector('#dp-download "
        "a').getAttribute('href')}"
    )
    return (
        f'<video class="dp-result" controls loop playsinline preload="auto" src="{escape(link)}" onerror="{retry}" '
        'aria-label="The finished video"></video>'
    )


def result_placeholder(status: JobStatus | None) -> str:
    """What stands where the finished video will be: a preview of its first frame while that is denoised, else a
    sentence."""
    if status is not None and status.latent_preview is not None:
        picture = base64.b64encode(status.latent_preview).decode()
        return (
            f'<figure class="dp-latent-preview"><img src="data:image/png;base64,{picture}" alt="What the first '
            'frame is about to be">'
            "<figcaption>A first preview; details come last.</figcaption></figure>"
        )
    stopped = status is not None and status.final
    return (
        "<div "
        f'class="dp-empty">{"There is no finished video." if stopped else "The finished video appears here."}</div>'
    )


def download_link(link: str, words: str, num_frames: int = 0) -> str:
    """The download button; the file is called as the link's path ends."""
    detail = f' <span class="dp-quiet">{num_frames} frames</span>' if num_frames else ""
    name = link.partition("?")[0].rpartition("/")[2]
    return (
        f'<a class="dp-download" href="{escape(link)}&amp;download=1" '
        f'download="{escape(name)}">{escape(words)}</a>{detail}'
    )


def time_left(seconds: float) -> str:
    """ "about 40 s left", in steps coarse enough not to flicker."""
    if seconds < 5:
        return "a few seconds left"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s left"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min left"
    return f"about {seconds / 3600:.1f} h left"


def _words(status: JobStatus) -> tuple[str, str]:
    """Headline and detail of a state."""
    progress = status.progress
    if status.state == "done":
        return "Your video is ready", ""
    if status.state == "failed":
        return "This did not work", "Nothing else was lost; change what the sentence below names and run it again."
    if status.state == "cancelled":
        return "Stopped", f"{len(status.frames)} frames were finished." if status.frames else "Nothing was made yet."
    if status.state == "cancelling":
        return "Stopping", "The step that is running comes to its end."
    if status.state == "interrupted":
        return "Paused" if status.error else "Paused by a restart", "It goes on by itself; what is finished is kept."
    if progress is not None and progress.stage == "estimating" and not status.final:
        return "Finding the person", f"Picture {progress.step} of {progress.total}"
    if status.state == "queued" and status.place > 0:
        before = status.place - 1
        ahead = "yours is next" if before == 0 else f"{before} {'job is' if before == 1 else 'jobs are'} before yours"
        return "Waiting in the queue", f"Place {status.place}: {ahead}. You can close the page and come back."
    if progress is None or progress.stage not in _STAGE_OF:
        return "Getting ready", "The files are checked and the model is loaded."
    detail = f"{_UNITS[progress.stage].capitalize()} {progress.step} of {progress.total}"
    if progress.seconds_left is not None and progress.step < progress.total:
        detail += f" · {time_left(progress.seconds_left)}"
    return _SENTENCES[progress.stage], detail


def _bar(status: JobStatus) -> str:
    progress = status.progress
    if status.state == "done":
        value = ' value="1" max="1"'
    elif progress is not None and progress.total > 0 and status.state != "queued":
        value = f' value="{progress.step}" max="{progress.total}"'
    elif status.final or status.state == "queued":
        value = ' value="0" max="1"'
    else:
        value = ""  # a bar without a value shows that something goes on
    return f'<progress class="dp-bar"{value} aria-label="Progress of this stage"></progress>'


def _stages(status: JobStatus) -> str:
    """The stages of this job's recipe, those behind it and the present one marked."""
    recipe = status.request.options.recipe if status.request else "fast"
    stages = [stage for stage in STAGES if recipe != "none" or stage[0] != "learn"]
    names = [name for name, _ in stages]
    now = _STAGE_OF.get(status.progress.stage, "check") if status.progress else "check"
    position = len(names) if status.state == "done" else names.index(now) if now in names else 0
    items = []
    for index, (_, words) in enumerate(stages):
        kind = "done" if index < position else "now" if index == position and not status.final else "later"
        current = ' aria-current="step"' if kind == "now" else ""
        items.append(f'<li class="dp-stage-{kind}"{current}>{words}</li>')
    return '<ol class="dp-stages">' + "".join(items) + "</ol>"


def preview_box(status: JobStatus, link: str | None) -> str:
    """The preview as it comes, or the motion that is made: where it stands, what was found out about the files, the
    video."""
    what = "motion" if status.kind == "motion" else "preview"
    said = "".join(f"<li>{escape(notice)}</li>" for notice in status.notices)
    notices = f'<ul class="dp-notices">{said}</ul>' if said else ""
    if status.look is not None:
        picture = base64.b64encode(status.look.read_bytes()).decode()
        image = (
            f'<img class="dp-look" src="data:image/png;base64,{picture}" alt="The photo with the person found in it">'
        )
        return f'<div class="dp-preview-box" data-state="done">{image}{notices}</div>'
    if link is not None:
        label = "Preview: the photo, the motion on it, the photo's pixels moved by it"
        if what == "motion":
            label = "The motion, each part of the body in a colour of its own"
        video = (
            f'<video class="dp-preview" controls loop autoplay muted playsinline src="{escape(link)}" '
            f'aria-label="{escape(label)}"></video>'
        )
        return f'<div class="dp-preview-box" data-state="done">{video}{notices}</div>'
    if status.state == "failed":
        return error_box(status.error or f"The {what} failed; try again.") + notices
    words = {"cancelled": f"The {what} was stopped.", "queued": f"The {what} waits for its turn."}.get(status.state)
    progress = status.progress
    if words is None and progress is not None and progress.stage == "preview" and progress.step:
        words = f"Making the preview: frame {progress.step} of {progress.total}."
    elif words is None and progress is not None and progress.stage == "estimating":
        words = f"Finding the person: picture {progress.step} of {progress.total}."
    elif words is None and progress is not None and progress.stage == "drawing" and progress.step:
        words = f"Drawing the motion: frame {progress.step} of {progress.total}."
    elif words is None:
        words = "Getting ready to draw." if what == "motion" else "Reading the files."
    return f'<p class="dp-quiet" role="status" data-state="{escape(status.state)}">{words}</p>{notices}'


def pace_line(pace: Timing, recipe: str) -> str:
    """What pressing Run will cost on this machine, as far as it was measured."""
    if pace.frame_s is None:
        return chosen(
            "How long it takes on this server is not known yet: nobody has made a video in this quality here."
        )
    parts = []
    if recipe != "none":
        known = pace.learning_s is not None
        parts.append(
            f"learning a new person {seconds_words(pace.learning_s)}"
            if known
            else "learning a new person: not measured yet"
        )
    parts.append(f"60 frames {seconds_words(60 * pace.frame_s)}")
    memory = f", with at most {pace.memory_mb / 1000:.1f} GB of memory" if pace.memory_mb is not None else ""
    where = f" ({pace.device.partition(', ')[0]})" if pace.device else ""  # not why in which precision
    return chosen(f"Measured on this server{where}: {', '.join(parts)}{memory}.")


def seconds_words(seconds: float) -> str:
    """ "about 50 s" or "about 3 min"."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def length_words(hours: float) -> str:
    """ "6 hours" or "3 days"."""
    number, unit = (hours, "hour") if hours < 48 else (hours / 24, "day")
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def chosen(words: str, name: str | None = None) -> str:
    """A quiet line that says what is chosen."""
    return f'<p class="dp-quiet">{escape(words)}{": <strong>" + escape(name) + "</strong>" if name else ""}</p>'
