"""How the page's events are answered, and fields in which an open page keeps something; for all parts of the page."""

from __future__ import annotations

import gradio as gr

REFRESH_S = 240  # well inside a link's lifetime
QUIET = {"show_progress": "hidden", "api_visibility": "private"}
# Answered in the request itself. Gradio closes the stream that it answers queued events on when the last of them is
# done, and an event that comes at that very moment is never answered; so only what sends more than one answer goes that
# way.
QUICK = QUIET | {"queue": False}
# Events that take the photo are handed what the browser sends: Gradio's own reading of an image opens the file in this
# process.
UNOPENED = {"preprocess": False}


def kept(elem_id: str) -> gr.Textbox:
    """Something that an open page remembers; style.css hides it."""
    return gr.Textbox(None, show_label=False, container=False, elem_id=elem_id)
