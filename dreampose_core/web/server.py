"""The FastAPI application: the page, the HTTP API, /healthz, and what jobs have made."""

from __future__ import annotations

import hmac
import json

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect, Request

from ..errors import InputError, StorageError
from ..jobs.service import JobService
from .api import build_api, failure
from .form import uploaded
from .links import ResultLinks, add_results, installation_secret
from .page import build_page, static

SESSIONS = 100  # of Gradio that are kept; nothing of a visitor lies in one
MAX_EVENT = 1 << 20  # bytes of the values that an event sends


def build_app(service: JobService) -> FastAPI:
    """The application, ready to be served; `service` is started and stopped by the caller.

    Raises StorageError when the data folder cannot be written.
    """
    settings = service.settings
    secret = installation_secret(settings)
    links = ResultLinks(secret)
    # a key of its own: every visitor gets it, and it reveals nothing about that of the links
    browser_secret = hmac.new(secret.encode(), b"browser state", "sha256").hexdigest()[:32]
    page = build_page(service, links, browser_secret)
    page.state_session_capacity = SESSIONS
    app = FastAPI(title="DreamPose", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(OnlyUploads)

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        """Whether the program works, for supervisors: 200 while all workers live and the disk has room, else 503."""
        try:
            health = service.health()
        except (StorageError, OSError):
            return JSONResponse({"status": "down"}, 503)
        healthy = health.pop("healthy")
        return JSONResponse({"status": "ok" if healthy else "degraded", **health}, 200 if healthy else 503)

    add_results(app, service.home, links)
    app.mount("/api/v1", build_api(service, links))
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        root_path=settings.root_path or None,
        app_kwargs={"exception_handlers": {ClientDisconnect: failure}},
        show_error=False,
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        max_file_size=f"{settings.max_upload_mb}mb",
        footer_links=[],
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        head=f"<style>{static('style.css')}</style><script>{static('preact.js')}\n{static('page.js')}</script>",
    )


class OnlyUploads:
    """ASGI middleware: files that an event names must have been uploaded; Gradio would also fetch addresses."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        path = scope.get("path", "")
        event = scope["type"] == "http" and scope["method"] == "POST" and "/gradio_api/" in path
        if not event or path.endswith("/gradio_api/upload"):
            return await self.app(scope, receive, send)
        body = b""
        try:
            async for part in Request(scope, receive).stream():
                body += part
                if len(body) > MAX_EVENT:
                    raise InputError("The event is too large.")
            json.loads(body or b"null", object_hook=_checked)
        except (InputError, ValueError, RecursionError) as error:
            words = str(error) if isinstance(error, InputError) else "The event is no JSON."
            return await JSONResponse({"error": words}, 403)(scope, receive, send)
        sent = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay():
            return next(sent, None) or await receive()

        return await self.app(scope, replay, send)


def _checked(part: dict) -> dict:
    if isinstance(part.get("path"), str):
        uploaded(part)
    return part
