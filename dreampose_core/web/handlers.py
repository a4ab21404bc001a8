"""What the page's events do: choose, submit, watch, cancel; each asks the job service and keeps nothing of its own."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import gradio as gr
from gradio.utils import get_upload_folder, is_static_file

from ..errors import DreamPoseError, InputError, UnknownJob
from ..jobs.records import MAX_MORE_PHOTOS, THINGS, JobRequest, JobStatus
from ..jobs.service import JobService
from ..settings import MAX_SEED, AnimateOptions, frame_range, validated
from . import library, render
from .again import SWITCHES
from .consent import consent_to
from .examples import Motion, Person, title
from .links import ResultLinks
from .owners import is_token, new_token

MADE = "job:"  # of a motion's name: it was made by this visitor's job of the id that follows
MADE_GONE = "The motion that you made is no longer there; make it again in the tab “Make a motion”."
POLL_S = 0.4
WAITING_POLL_S = 1.2  # of a job that waits: of many jobs nearly all do, and little changes
CROWD_POLL_S = 0.02  # for each page that watches: what one thread sends to all must leave it time for other answers
SETTLED_S = 1.0
NONE_SELECTED = -1  # a gallery ignores None; this one comes back as an event, which `pick_...` leave alone


NOTHING = {"card": "", "loss": "", "samples": "", "result": "", "download": "", "shelf": ""}
"""What the parts show where there is no job."""


def uploaded(file: str | dict) -> Path:
    """The path of a file that was uploaded, or of an example; `file` as Gradio names it, or as a browser sends it,
    {"path": ...}.

    Raises InputError for any other path of the server, and for addresses.
    """
    path = file.get("path") if isinstance(file, dict) else file
    resolved = Path(path if isinstance(path, str) else "").resolve()
    if not (resolved.is_relative_to(Path(get_upload_folder()).resolve()) or is_static_file(str(resolved))):
        raise InputError("One of the files was not uploaded to this page; please choose it again.")
    return resolved


def _uploads(files: object) -> tuple[Path, ...]:
    """The paths of the further photos; raises InputError as `uploaded`, and where there are too many."""
    given = files if isinstance(files, list) else [files] if files else []
    if len(given) > MAX_MORE_PHOTOS:
        raise InputError(
            f"There are {len(given)} more photos, and at most {MAX_MORE_PHOTOS} are taken; remove some in field 1."
        )
    return tuple(uploaded(file) for file in given)


def owner_of(browser: dict | None) -> str:
    """The owner token that a browser keeps; raises InputError when it keeps none."""
    token = browser.get("owner") if isinstance(browser, dict) else None
    if not is_token(token):
        raise InputError("This page has lost its place; reload it.")
    return token


class PageHandlers:
    """The page's event handlers. One object serves all visitors: whatever belongs to one of them lies in their browser
    or in the store."""

    def __init__(self, service: JobService, links: ResultLinks, people: list[Person], motions: list[Motion]):
        self.service, self.links = service, links
        self.people, self.motions = people, motions
        self._turns: dict[str, object] = {}  # page session -> the watch that may still write to it
        self._previews: dict[
            tuple[str, str], list[str]
        ] = {}  # owner and place -> the preview under way there; none yet while it is sent

    def watched(self, **components) -> None:
        """Names the components that `watch` writes to."""
        self.parts = components
        self.outputs = list(components.values())

    def taken_up(self, **components) -> list:
        """Names the components that `acts.Acts` writes to besides the shelf, and returns all of them."""
        self.parts = self.parts | components
        return [self.parts["shelf"], *components.values()]

    # -- opening, choosing ------------------------------------------------------------------------------------------

    def open_page(self, browser: dict | None):
        """The browser's token, made on the first visit; the job to show, the one shown last or the newest; Run."""
        try:
            owner = owner_of(browser)
        except InputError:
            return {"owner": new_token(), "job": None}, None, gr.update(interactive=True)
        known = [status.id for status in self.service.jobs(owner)]
        job = browser.get("job") if browser.get("job") in known else next(iter(known), None)
        return {"owner": owner, "job": job}, job, gr.update(interactive=True)

    def own_photo(self):
        """With a photo of the visitor's own, no example is chosen."""
        return gr.update(selected_index=NONE_SELECTED)

    def pick_person(self, event: gr.SelectData):
        """The example's photo and its DensePose; more photos would be somebody else's."""
        if not 0 <= event.index < len(self.people):
            return gr.skip(), gr.skip(), gr.skip()
        person = self.people[event.index]
        return str(person.image), str(person.poses) if person.poses else None, None

    def pick_motion(self, event: gr.SelectData):
        """The shipped motion's name; an uploaded one steps back."""
        if not 0 <= event.index < len(self.motions):
            return gr.skip(), gr.skip(), gr.skip()
        motion = self.motions[event.index]
        return motion.name, self.motion_words(title(motion.name)), None

    def own_motion(self, path: str):
        """An uploaded motion takes the gallery's place."""
        return None, self.motion_words(f"your file {Path(path).name}"), gr.update(selected_index=NONE_SELECTED)

    def no_motion(self):
        """The uploaded motion was taken back."""
        return None, self.motion_words(None)

    @staticmethod
    def motion_words(name: str | None) -> str:
        """The line under the gallery that says what is chosen."""
        return render.chosen("Chosen", name) if name else render.chosen("No motion chosen yet.")

    @staticmethod
    def random_seed() -> int:
        """A seed drawn anew, shown in the field, so that it is the one used."""
        return secrets.randbelow(MAX_SEED + 1)

    def pace(self, recipe: str, quality: str) -> str:
        """What these choices cost on this machine."""
        return render.pace_line(self.service.pace(str(recipe), str(quality)), str(recipe))

    # -- jobs -------------------------------------------------------------------------------------------------------

    def submit(self, browser, **form):
        """The submitted job becomes the one shown; what is wrong with the form is one sentence beside the button."""
        try:
            owner = owner_of(browser)
            job = self.service.submit(owner, self._request("animate", owner, **form))
        except DreamPoseError as error:
            return gr.skip(), gr.skip(), render.error_box(str(error))
        return {"owner": owner, "job": job}, job, ""

    async def look(self, browser, photo, photo_poses, **frame) -> str:
        """How the photo is understood: the person in it, and what of it will be shown; nothing without a photo. frame:
        FrameOptions."""
        if (
            photo and isinstance(browser, dict) and browser.get("owner")
        ):  # a photo may be dropped in before the page has opened

            def request(_) -> JobRequest:
                own = uploaded(photo_poses) if photo_poses else None
                options = validated(AnimateOptions, frame)
                return JobRequest(kind="preview", image=uploaded(photo), poses=None, image_poses=own, options=options)

            try:
                async for status in self.followed("look", browser, request):
                    if status.final:
                        return render.preview_box(status, None)
            except DreamPoseError as error:
                return render.error_box(str(error))
            return gr.skip()  # a later look took its place
        return ""

    async def preview(self, browser, **form) -> AsyncIterator[str]:
        """What the motion does to the photo: what was read first, then the video; one sentence where something is
        wrong."""
        try:
            async for status in self.followed(
                "preview", browser, lambda owner: self._request("preview", owner, **form)
            ):
                yield render.preview_box(status, self.link(status, "video") if status.result else None)
        except DreamPoseError as error:
            yield render.error_box(str(error))

    async def followed(
        self, place: str, browser, make_request: Callable[[str], JobRequest]
    ) -> AsyncIterator[JobStatus]:
        """A job of seconds as it goes on, up to its end; the one that was followed at the same `place` in the same
        browser before is stopped, and no more comes of it. make_request: of its owner's token. Raises
        DreamPoseError."""
        owner = owner_of(browser)
        request, key = make_request(owner), (owner, place)
        for before in self._previews.get(key, ()):
            self.service.cancel(owner, before)
        mine = self._previews[key] = []
        try:
            mine.append(await asyncio.to_thread(self.service.submit, owner, request))
            if self._previews.get(key) is not mine:  # another came while this one was sent
                self.service.cancel(owner, mine[0])
            while self._previews.get(key) is mine:
                status = await asyncio.to_thread(self.service.status, owner, mine[0])
                if self._previews.get(key) is mine:
                    yield status
                if status.final:
                    return
                await asyncio.sleep(POLL_S)
        finally:
            if self._previews.get(key) is mine:
                del self._previews[key]

    def made(self, owner: str, job: object) -> JobStatus:
        """The job that made a motion of this owner's; raises InputError for any other, and where it has expired."""
        try:
            status = self.service.status(owner, job)
        except UnknownJob as error:
            raise InputError(MADE_GONE) from error
        if status.motion is None:
            raise InputError(MADE_GONE)
        return status

    def _poses(self, owner: str, motion: object) -> Path | None:
        """The file of a motion by its name in field 2, None where there is none of that name."""
        if isinstance(motion, str) and motion.startswith(MADE):
            return self.made(owner, motion.removeprefix(MADE)).motion
        return next((m.poses for m in self.motions if m.name == motion), None)

    def _request(
        self,
        kind,
        owner,
        *,
        photo,
        photo_poses,
        consent,
        motion,
        motion_file,
        seed,
        frames,
        changes,
        more_photos=None,
        **options,
    ) -> JobRequest:
        """The form as a typed request. changes: the switches of AnimateOptions that are on. options: its other fields
        by name;
        empty texts take their defaults."""
        if not photo and kind == "animate":
            raise InputError("Choose a photo first: drop one into field 1, or take an example person.")
        poses = uploaded(motion_file) if motion_file else self._poses(owner, motion)
        if not poses:
            raise InputError("Choose a motion first: pick one in field 2, or upload your own.")
        if seed is None:
            raise InputError(f"The seed is empty; give a whole number from 0 to {MAX_SEED} or press Random seed.")
        more = _uploads(more_photos) if kind == "animate" else ()
        given = {name: value for name, value in options.items() if not isinstance(value, str) or value.strip()}
        # as the browser sent it: nobody has looked yet whether these are a list and a text
        given |= {name: isinstance(changes, list) and name in changes for name in SWITCHES}
        given["first_frame"], given["last_frame"] = frame_range(frames if isinstance(frames, str) else None, "Frames")
        image = uploaded(photo) if photo else None
        return JobRequest(
            kind=kind,
            image=image,
            poses=poses,
            image_poses=uploaded(photo_poses) if photo_poses else None,
            more_images=more,
            options=validated(AnimateOptions, {"seed": seed, **given}),
            consent=image and consent_to((image, *more), self.people, consent),
        )

    def cancel(self, browser: dict | None, job: str | None):
        """Asks the job to stop; the watch shows what comes of it."""
        try:
            self.service.cancel(owner_of(browser), job)
        except DreamPoseError as error:
            return render.error_box(str(error))
        return ""

    async def watch(self, browser: dict | None, job: str | None, request: gr.Request) -> AsyncIterator[dict]:
        """Shows the job until it is final, or until this page watches another one; chunks are played from the first.

        Every yield is the whole picture: when several arrive at once the page may keep only the last of them.
        """
        turn = self._turns[request.session_hash] = object()
        try:
            owner = owner_of(browser)
            if not job:
                # without videos there may be people
                shelf = await asyncio.to_thread(self.shelf, owner, None)
                yield self.named(NOTHING | {"live": gr.update(value=None), "shelf": shelf})
                return
            status, pulse = await asyncio.to_thread(self._status, owner, job)
            own, own_state = await asyncio.to_thread(self.shelf, owner, job), status.state
            replay = status.state != "done"  # a finished video is shown as it is, without its chunks
            picture: dict = {}
            learned, drawn = "", None
            num_played = 0
            while self._turns.get(request.session_hash) is turn:
                if status.state != own_state:
                    own, own_state = await asyncio.to_thread(self.shelf, owner, job), status.state
                if drawn != (status.samples, status.final):
                    learned, drawn = await asyncio.to_thread(render.samples, status), (status.samples, status.final)
                last, picture = picture, self._picture(status, own, replay) | {"samples": learned}
                chunks = status.chunks[num_played:] if replay else ()
                # None adds nothing to a stream that has begun; before that, the update empties the player.
                waiting = None if num_played else gr.update(value=None)
                for chunk in chunks:
                    yield self.named(picture | {"live": str(chunk)})
                num_played += len(chunks)
                if not chunks and picture != last:
                    yield self.named(picture | {"live": waiting})
                if status.final:
                    own = await self._settled(owner, job, request.session_hash, turn)
                    yield self.named({"card": gr.skip()} if own is None else picture | {"live": waiting, "shelf": own})
                    return
                pause = WAITING_POLL_S if status.state == "queued" and status.place > 1 else POLL_S
                await asyncio.sleep(max(pause, CROWD_POLL_S * len(self._turns)))
                if self.service.pulse(owner, job) != pulse:  # takes no longer than to hand it to a thread
                    status, pulse = await asyncio.to_thread(self._status, owner, job)
            yield self.named(
                {"card": gr.skip()}
            )  # Gradio sends the last yield again at the end, when another job is shown already
        except DreamPoseError as error:
            yield self.named({"card": render.error_box(str(error))})
        finally:
            if self._turns.get(request.session_hash) is turn:
                del self._turns[request.session_hash]

    async def _settled(self, owner: str, job: str, session: str, turn: object) -> str | None:
        """The shelf as it is a moment after the job's end; None where another job is shown by then, or this one was
        deleted.

        Gradio sends the last yield once more when a watch ends; at once, that could undo what its viewer has just done
        with the job.
        """
        await asyncio.sleep(SETTLED_S)
        with suppress(UnknownJob):
            if self._turns.get(session) is turn and self.service.status(owner, job).final:
                return await asyncio.to_thread(self.shelf, owner, job)
        return None

    def _status(self, owner: str, job: str) -> tuple[JobStatus, tuple]:
        """The job as it stands, and the pulse before, so that no change falls in between."""
        pulse = self.service.pulse(owner, job)
        return self.service.status(owner, job), pulse

    def fresh_link(self, browser: dict | None, job: str | None):
        """New links to what the job has made before the old ones expire."""
        try:
            return self._download(self.service.status(owner_of(browser), job))
        except DreamPoseError:
            return gr.skip()

    def fresh_shelf(self, browser: dict | None, job: str | None):
        """The shelf with new links, likewise."""
        try:
            return self.shelf(owner_of(browser), job)
        except DreamPoseError:
            return gr.skip()

    # -- pieces -----------------------------------------------------------------------------------------------------

    def named(self, updates: dict) -> dict:
        """Updates by the components they are for, from updates by their names."""
        return {self.parts[name]: update for name, update in updates.items()}

    def _picture(self, status: JobStatus, own: str, replay: bool) -> dict:
        """What every part but the player shows for this status. own: what `library` gave."""
        live = replay and bool(not status.final or status.chunks)
        link = self.link(status, "video") if "video" in status.things else ""
        return {
            # plain values: for an update Gradio makes the whole component anew, for every page and every message
            "card": render.status_card(status, live),
            "loss": render.loss_curve(status),
            "result": render.result_player(link) if link else render.result_placeholder(status),
            "download": self._download(status),
            "shelf": own,
        }

    def shelf(self, owner: str, shown: str | None) -> str:
        """What the visitor has here, as HTML."""
        jobs = [(status, self.service.size_mb(owner, status.id)) for status in self.service.jobs(owner)]

        def link(whose: str, thing: str) -> str:
            return self.links.make(whose, "person.zip" if thing == "subject" else f"{thing}.png", thing)

        return library.shelf(jobs, self.service.subjects(owner), shown, link, time.time())

    def _download(self, status: JobStatus) -> str:
        if "video" not in status.things:
            return ""
        return render.download_link(
            self.link(status, "video"), "Download the MP4", len(status.frames)
        ) + library.things(status, self.link)

    def link(self, status: JobStatus, thing: str) -> str:
        """A fresh link to a thing of the job's, under a name that tells nothing but what it is."""
        number = hashlib.sha256(status.id.encode()).hexdigest()[:8]
        return self.links.make(
            status.id, f"dreampose-{number}{'' if thing == 'video' else '-' + thing}{THINGS[thing]}", thing
        )
