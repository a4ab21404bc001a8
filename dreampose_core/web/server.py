"""The FastAPI application: the page, the HTTP API, /healthz, and what jobs have made."""

from __future__ import annotations

import secrets
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from ..errors import StorageError
from ..jobs.service import JobService
from ..settings import EXAMPLES, REPOSITORY, Settings
from .api import build_api
from .links import ResultLinks, derived_key, installation_secret
from .page import build_page
from .results import results_router
from .sessions import Sessions, sessions_let_go

PAGE_ASSETS = REPOSITORY / "assets" / "page"


def build_app(settings: Settings, service: JobService, examples: Path = EXAMPLES) -> FastAPI:
    """The application, ready to be served; `service` is started and stopped by the caller.

    Raises StorageError when the data folder cannot be written.
    """
    settings = settings.with_folders()  # as the job service does
    secret = installation_secret(settings)
    links = ResultLinks(secret)
    page = build_page(
        settings, service, links, browser_secret=derived_key(secret, "browser state").hex()[:32], examples=examples
    )
    app = FastAPI(title="DreamPose", docs_url=None, redoc_url=None, openapi_url=None, lifespan=sessions_let_go(page))

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        """Whether the program works, for supervisors: 200 while all workers live and the disk has room, else 503."""
        try:
            health = service.health()
        except (StorageError, OSError):
            return JSONResponse({"status": "down"}, 503)
        healthy = health.pop("healthy")
        return JSONResponse({"status": "ok" if healthy else "degraded", **health}, 200 if healthy else 503)

    start = secrets.token_hex(8)

    @app.get("/alive")
    async def alive() -> JSONResponse:
        """Which start of the server this is, for pages that were open before."""
        return JSONResponse({"server": start}, headers={"Cache-Control": "no-store"})

    app.include_router(results_router(settings, links))
    app.mount("/api/v1", build_api(settings, service, links, examples))
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size=f"{settings.max_upload_mb}mb",
        footer_links=[],
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], text_size="lg"),
        css_paths=[PAGE_ASSETS / "style.css"],
    )
    inner = app.routes[-1].app  # the page's own application, mounted last
    inner.add_exception_handler(
        ClientDisconnect, _gone
    )  # a tab that is closed in the middle of an upload is no error of the server
    inner.state_holder = Sessions(page)
    return app


async def _gone(request: Request, error: ClientDisconnect) -> JSONResponse:
    return JSONResponse({"error": "The request was broken off."}, 400)  # nobody reads this
