"""What the buttons in what is shown do: on the shelf, and beside a finished video."""

from __future__ import annotations

import json

from ..errors import DreamPoseError, InputError
from ..jobs.records import JobRequest
from . import library, render
from .again import better, form_of, motion_of, person_of
from .handlers import PageHandlers, owner_of


def _asked(asked: object) -> tuple[str, str, str]:
    """What a button of the shelf said; raises InputError for anything else."""
    try:
        told = json.loads(asked)
        do, what, name = (told[key] for key in ("do", "id", "name"))
    except (TypeError, ValueError, KeyError, RecursionError):
        do = what = name = None
    if not all(isinstance(part, str) for part in (do, what, name)):
        raise InputError("This page is of another version; reload it.")
    return do, what, name


class Acts:
    """One button's handler; as with the page's own, nothing of a visitor stays here."""

    def __init__(self, page: PageHandlers):
        self.page = page

    def act(self, browser: dict | None, asked: str) -> dict:
        """A button on the shelf was pressed: one of the visitor's videos or people is shown, compared, renamed, deleted
        or used again."""
        try:
            owner = owner_of(browser)
            do, what, name = _asked(asked)
            shown = browser.get("job")
            fields: dict[str, object] = {}
            if do == "open":
                shown = self.page.service.status(owner, what).id
            elif do == "rename":
                self.page.service.rename(owner, what, name)
            elif do == "delete":
                self.page.service.delete(owner, what)
                if shown == what:
                    shown = next((status.id for status in self.page.service.jobs(owner)), None)
            elif do == "forget":
                self.page.service.delete_subject(owner, what)
            elif do == "use":
                fields = person_of(self.page.service.subject(owner, what))
            elif do == "again":
                fields = form_of(self._made_from(owner, what))
            elif do == "motion":
                fields = motion_of(self._made_from(owner, what))
            elif do == "better":
                shown = self._better(owner, what)
            elif do == "compare":
                return self.page.named({"compared": self._compared(owner, shown, what)})
            else:
                raise InputError("This page is of another version; reload it.")
        except (DreamPoseError, OSError) as error:  # a file may just have expired
            words = (
                str(error)
                if isinstance(error, DreamPoseError)
                else "What it was made from is gone; choose a photo and a motion anew."
            )
            return {self.page.parts["message"]: render.error_box(words)}
        updates = {
            "browser": {"owner": owner, "job": shown},
            "job": shown,
            "message": "",
            "shelf": self.page.shelf(owner, shown),
            "compared": "",
        } | fields
        if "motion_file" in fields:
            updates["motion_words"] = self.page.motion_words("the motion of that video")
        return self.page.named(updates)

    def _made_from(self, owner: str, job: str) -> JobRequest:
        request = self.page.service.status(owner, job).request
        if request is None or request.image is None or request.poses is None:
            raise InputError("What this video was made from is not there any more; choose a photo and a motion anew.")
        return request

    def _better(self, owner: str, job: str) -> str:
        """The id of a new job: the same in the next quality."""
        if (request := better(self._made_from(owner, job))) is None:
            raise InputError("This video has the best quality already.")
        return self.page.service.submit(owner, request)

    def _compared(self, owner: str, shown: str | None, other: str) -> str:
        ids = [status.id for status in reversed(self.page.service.jobs(owner))]
        both = [self.page.service.status(owner, job) for job in (shown, other)]
        if not all("video" in status.things for status in both):
            raise InputError("Both videos must be finished to be compared.")
        return library.compared(
            *((library.job_name(status, ids.index(status.id) + 1), self.page.link(status, "video")) for status in both)
        )
