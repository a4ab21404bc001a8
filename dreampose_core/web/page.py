"""The page: where its parts stand, and which function answers which event. What is polled is the HTTP API."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import gradio as gr

from ..errors import DreamPoseError, InputError
from ..files import model_config
from ..jobs.records import JobRequest
from ..jobs.service import JobService
from ..poses import read_poses
from ..settings import AnimateOptions, MotionOptions, Settings, validated
from .endpoints import add_gradio_endpoints, one_sentence
from .examples import FOLDERS, MOTIONS, PEOPLE, READY, is_example
from .form import copied, fields_of, fields_of_person, option, request_of, words
from .links import ResultLinks, is_token, new_token
from .programs import refusal

STATIC = Path(__file__).parent / "static"
UPLOAD = "Upload a video or DensePose"
FIRST = "fashion"  # the motion that is chosen at first
FRAMES = 40  # of a clip whose length is not known here
_HERE = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}  # answered within the request
_UNOPENED = {"preprocess": False}  # files are named, not opened, in this process
_ESTIMATORS = {"body": "the body tracker", "torchscript": "DensePose itself", "none": "none; bring your own DensePose"}
Fields = dict[str, gr.components.Component]


def static(name: str) -> str:
    """A file of web/static."""
    return (STATIC / name).read_text(encoding="utf-8")


def build_page(service: JobService, links: ResultLinks, browser_secret: str) -> gr.Blocks:
    """The page, not yet served. browser_secret: encrypts what the browser keeps; every visitor's page knows it."""
    gr.set_static_paths(FOLDERS)
    with gr.Blocks(title="DreamPose", analytics_enabled=False, fill_width=True) as page:
        browser = gr.BrowserState(None, storage_key="dreampose", secret=browser_secret)
        gr.HTML(static("header.html"), elem_id="header", apply_default_css=False)
        with gr.Row(elem_id="main", equal_height=False):
            with gr.Column(elem_id="form", scale=0, min_width=392):
                people, form = _inputs()
                with gr.Accordion("Customise the motion", open=False, elem_id="custom"):
                    custom = {name: option(MotionOptions, name) for name in MotionOptions.model_fields}
                    draw = gr.Button("Draw this motion", elem_id="draw")
                with gr.Column(elem_id="agreed", min_width=100):
                    form["consent"] = gr.Checkbox(
                        False, label=static("consent.txt").strip(), visible=False, container=False, elem_id="consent"
                    )
                run = gr.Button("Add a photo", variant="primary", size="lg", interactive=False, elem_id="run")
            with gr.Column(elem_id="stage", min_width=320):
                stage = _part("stage", None)
        gr.HTML("<h2>Try one of these</h2>", apply_default_css=False, elem_classes="heading")
        tiles = [_tile(motion, pair.title, pair.video) for motion, pair in READY.items()]
        pairs = _part("tiles", None, "pairs", tiles=tiles[:6])
        library = _part("library", None)
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            form |= _options(service.settings)
        with gr.Accordion("About", open=False, elem_id="about") as about:
            said = gr.Markdown()
        about.expand(one_sentence(lambda: about_server(service)), None, said, **_HERE)
        add_gradio_endpoints(service, links)  # before the events, one of which is called submit, too
        events = Events(service, browser, form, custom, run, stage)
        events.connect(page, people, pairs, draw, library)
    page.queue(max_size=256, default_concurrency_limit=8, api_open=False)
    return page


def about_server(service: JobService) -> str:
    """What this server is, for visitors, as Markdown: its model, device, and how long things are kept; no paths."""
    settings, model = service.settings, Path(service.settings.model)
    return static("about.md").format(
        model="mini" if settings.is_mini else model.name if model.is_dir() else settings.model,
        device=" and ".join(sorted(set(service.health()["devices"]))) or "the model is being loaded",
        estimator=_ESTIMATORS[settings.estimator],
        keep_results_h=settings.keep_results_h,
        keep_subjects_days=settings.keep_subjects_days,
    )


def _part(name: str, value: object, elem_id: str | None = None, **props) -> gr.HTML:
    """A part of the page that its script from web/static draws."""
    return gr.HTML(
        value,
        html_template="",
        js_on_load=static(f"{name}.js"),
        apply_default_css=False,
        elem_id=elem_id or f"{name}-part",
        **props,
    )


def _tile(name: str, title: str, file: Path) -> dict[str, str]:
    """One of the pictures of which the value names one. file: the picture, or a video with its poster."""
    link, moves = f"gradio_api/file={file}", file.suffix == ".mp4"
    return {"name": name, "title": title, "poster": link.replace(".mp4", ".webp"), "moving": link if moves else ""}


def _inputs() -> tuple[gr.HTML, Fields]:
    """The tiles of people, and photo and motion by the names of `form.request_of`."""
    photo = gr.Image(
        label="Photo",
        type="filepath",
        image_mode=None,
        sources=["upload", "webcam", "clipboard"],
        buttons=[],
        height=196,
        placeholder="Drop a photo of a person here\nor click to choose one",
        elem_id="photo",
    )
    tiles = [_tile(name, words(name), photo) for name, photo in PEOPLE.items()]
    people = _part("tiles", None, "people", tiles=tiles)
    tiles = [_tile(name, words(name), pair.video) for name, pair in READY.items()]
    motion = _part("tiles", FIRST, "motions", tiles=tiles)
    motion_file = gr.UploadButton(UPLOAD, size="sm", elem_id="motion-file")
    return people, {"photo": photo, "motion": motion, "motion_file": motion_file}


def _options(settings: Settings) -> Fields:
    """The options that the model heeds, in four groups."""
    config, form = model_config(settings.model), {}

    def group(title: str, *names: str) -> None:
        gr.Markdown(f"### {title}")
        form.update({name: option(AnimateOptions, name) for name in names})

    with gr.Row(equal_height=False):
        with gr.Column(min_width=260):
            group("Frame", "fit", "zoom", "shift_right", "shift_down")
            form["person_at"] = gr.Textbox(
                "", label="Person", placeholder="the largest", info="Click another one in the photo."
            )
        with gr.Column(min_width=260):
            group("Motion", "speed", "fps", "loops", "align")
            info = "A part of the motion, for example 0:60."
            form["frames"] = gr.Textbox("", label="Frames", placeholder="all", info=info)
            group("", "smooth", "fill_holes", "mirror", "reverse", "keep_sound")
        with gr.Column(min_width=260):
            gr.Markdown("### Files")
            form["photo_poses"] = gr.File(label="DensePose of the photo", height=140, elem_id="photo-poses")
            form["more_photos"] = gr.File(
                label="More photos of this person", file_count="multiple", height=140, elem_id="more-photos"
            )
        with gr.Column(min_width=260):
            gr.Markdown("### Model")
            recipe = "none" if settings.is_mini else "fast"  # fine-tuning changes mini little
            form["recipe"] = option(AnimateOptions, "recipe", value=recipe)
            if config.get("standard_steps", 0) != 1 or config.get("best_steps") != 1:
                group("", "quality")
            if config.get("standard_steps", 0) != 1:
                group("", "steps", "image_guidance", "pose_guidance", "solver")
            group("", "seed")
    return form


class Events:
    """What each event does. Nothing of a visitor is kept here: the token lies in the browser, all else in the store."""

    def __init__(self, service: JobService, browser, form: Fields, custom: Fields, run, stage):
        self.service, self.browser, self.form, self.custom = service, browser, form, custom
        self.run, self.stage = run, stage

    def connect(self, page: gr.Blocks, people: gr.HTML, pairs: gr.HTML, draw: gr.Button, library: gr.HTML) -> None:
        """Bind the events to the parts of the page."""
        form, browser, stage = self.form, self.browser, self.stage
        fields, photo, motion, file = list(form.values()), form["photo"], form["motion"], form["motion_file"]
        page.load(self.opened, browser, [browser, stage, self.run, *fields], **_HERE)
        pairs.pick(self.pick_pair, browser, [stage, self.run, *fields], **_HERE)
        stage.refused(self.refused, None, self.run, **_HERE)
        draw.click(self.draw, {browser, *self.custom.values()}, stage, **_HERE, **_UNOPENED)
        inputs = {browser, *fields}
        self.run.click(self.submit, inputs, stage, **_HERE, **_UNOPENED)
        # what changes the form, and afterwards button and preview
        own = [form["photo_poses"], form["more_photos"], form["person_at"]]
        changes = [
            people.pick(self.pick_person, None, [photo, form["consent"], *own], **_HERE),
            photo.input(self.own_photo, photo, [people, form["consent"], *own], **_HERE, **_UNOPENED),
            photo.select(self.pick_at, None, form["person_at"], **_HERE),
            motion.pick(self.pick_motion, None, [file, self.custom["motion"]], **_HERE),
            file.upload(self.own_motion, file, [motion, file], **_HERE, **_UNOPENED),
            stage.drawn(one_sentence(self.drawn), browser, [motion, file], **_HERE),
            library.again(one_sentence(self.again), browser, fields, **_HERE),
            library.use(one_sentence(self.use), browser, fields, **_HERE),
        ]
        plain = [form[name].input for name in ("fit", "align", "recipe", "consent")]
        plain += [form[name].release for name in ("zoom", "shift_right", "shift_down")]
        plain += [form["photo_poses"].upload, form["photo_poses"].clear]
        gr.on(plain, self.chosen, inputs, [stage, self.run], trigger_mode="always_last", **_HERE, **_UNOPENED)
        for change in changes:
            change.success(self.chosen, inputs, [stage, self.run], **_HERE, **_UNOPENED)

    def opened(self, kept: dict | None):
        """The visitor's token, made at the first visit; the newest video and its form, else an example."""
        owner = kept.get("owner") if isinstance(kept, dict) else None
        kept = {"owner": owner if is_token(owner) else new_token()}
        job = next(iter(self.service.jobs(kept["owner"])), None)
        shown = {"job": job.id} if job else {"example": READY[FIRST].shown}
        fields = fields_of(job.request) if job and _kept(job.request) else {}
        return kept, kept | shown, self.button(fields), *self.set(fields)

    def named(self, given: dict) -> dict[str, object]:
        """The form's fields by name."""
        return {name: given[part] for name, part in self.form.items()}

    def queued(self, kept: dict, what: str, request: Callable[[], JobRequest]) -> dict:
        """What the stage shows: the new job, or why there is none. what: "job" or "preview"."""
        try:
            return kept | {what: self.service.submit(kept["owner"], request())}
        except DreamPoseError as error:
            return kept | {"problem": refusal(error)}

    def chosen(self, given: dict):
        """What the button says, and a quick preview of what was chosen so far."""
        fields, kept = self.named(given), given[self.browser]
        button, photo = self.button(fields), fields["photo"]
        if not kept or (not photo and not fields["motion_file"]):
            return gr.skip(), button
        if photo and is_own(photo) and not fields["consent"]:
            fields |= {"motion": None, "motion_file": None}  # the photo alone, which is not moved
        return self.queued(kept, "preview", lambda: request_of("preview", fields)), button

    def submit(self, given: dict):
        """Queue the video."""
        return self.queued(given[self.browser], "job", lambda: request_of("animate", self.named(given)))

    def draw(self, given: dict):
        """Draw a motion to order."""
        values = {name: given[part] for name, part in self.custom.items()}
        return self.queued(
            given[self.browser], "preview", lambda: JobRequest(kind="motion", motion=validated(MotionOptions, values))
        )

    def button(self, fields: dict):
        """What is missing; else how long the video takes, where this machine's speed is known."""
        photo, motion = fields.get("photo"), fields.get("motion") or fields.get("motion_file")
        agreed = photo and (fields.get("consent") or not is_own(photo))
        missing = "Add a photo" if not photo else "Add a motion" if not motion else "Tick the box: they agreed"
        if not (motion and agreed):
            return gr.update(value=missing, interactive=False)
        timing = self.service.pace(str(fields.get("recipe", "none")), str(fields.get("quality", "standard")))
        if timing.frame_s is None:
            return gr.update(value="Make my video", interactive=True)
        shipped = MOTIONS.get(str(fields.get("motion")))
        frames = FRAMES if shipped is None else _length(shipped)
        seconds = frames * timing.frame_s + (timing.learning_s or 0)
        about = f"{max(5, 5 * round(seconds / 5))} s" if seconds < 90 else f"{round(seconds / 60)} min"
        return gr.update(value=f"Make my video, about {about}", interactive=True)

    def set(self, fields: dict[str, object]) -> list:
        """Updates of all fields; those that are not named stay."""
        more = {
            "consent": {"visible": bool(fields.get("consent"))},
            "motion_file": {"label": "Your motion" if fields.get("motion_file") else UPLOAD},
        }
        return [
            gr.update(value=fields[name], **more.get(name, {})) if name in fields else gr.skip() for name in self.form
        ]

    def pick_person(self, event: gr.EventData):
        """An example's photo, whose DensePose is known."""
        return str(PEOPLE[event.name]), gr.update(value=False, visible=False), None, None, ""

    def own_photo(self, photo):
        """Nothing of the photo before belongs to this one."""
        return None, gr.update(value=False, visible=bool(photo)), None, None, ""

    def pick_at(self, event: gr.SelectData):
        """The point that was clicked in the photo, in pixels."""
        return ", ".join(str(round(place)) for place in event.index)

    def pick_motion(self, event: gr.EventData):
        """An example's motion."""
        return gr.update(value=None, label=UPLOAD), event.name

    def own_motion(self, file: dict):
        """An uploaded motion, whose name the button tells."""
        return None, gr.update(label=f"Your motion: {file.get('orig_name') or 'a file'}")

    def pick_pair(self, kept: dict, event: gr.EventData):
        """A finished video at once, and what it was made from in the form."""
        pair = READY[event.name]
        fields = {"photo": str(PEOPLE[pair.person]), "motion": pair.motion, "motion_file": None, "consent": False}
        fields |= {"photo_poses": None, "more_photos": None, "person_at": ""}
        return kept | {"example": pair.shown}, self.button(fields), *self.set(fields)

    def drawn(self, kept: dict, event: gr.EventData):
        """A motion drawn to order becomes the form's."""
        job = self.service.status(kept["owner"], event.id)
        name = job.request.motion.motion
        return None, gr.update(value=copied(job.motion, f"{name}.npz"), label=f"Your motion: {words(name).lower()}")

    def refused(self):
        """What cannot be previewed cannot be animated."""
        return gr.update(value="Choose another photo or motion", interactive=False)

    def again(self, kept: dict, event: gr.EventData):
        request = self.service.status(kept["owner"], event.id).request
        if not _kept(request):
            raise InputError("Its photo and motion are not here: they are still being read, or no longer kept.")
        return self.set(fields_of(request))

    def use(self, kept: dict, event: gr.EventData):
        return self.set(fields_of_person(self.service.subject(kept["owner"], event.key)))


def is_own(photo: str | dict) -> bool:
    """Whether a photo, as Gradio sends it, is none of the examples."""
    return not is_example(Path(photo["path"] if isinstance(photo, dict) else photo))


@cache
def _length(motion: Path) -> int:
    return len(read_poses(motion))


def _kept(request: JobRequest | None) -> bool:
    """Whether a job's photos and motion can be used again; they may not be decoded yet, or be unusable."""
    files = () if request is None else (request.image, request.poses, *request.more_images)
    return bool(files) and all(path is not None and path.is_file() for path in files)
