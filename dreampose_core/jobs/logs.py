"""Log lines as text or JSON, each with its job's id; they never contain what owners uploaded or wrote.

A line about a job has its id in the field `job`, from `logging.LoggerAdapter(log, {"job": ...})`.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

from ..settings import LogFormat

current_job: ContextVar[str | None] = ContextVar("current_job", default=None)
"""The id of the job that this thread works on, for lines of modules that know of no jobs."""


class JsonLines(logging.Formatter):
    """Formatter that writes one JSON object a line: time (UTC), level, logger, message; if any, job and traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if job := getattr(record, "job", None) or current_job.get():
            line["job"] = job
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(form: LogFormat) -> None:
    """Send all log lines of this process to stderr in the given form."""
    text = logging.Formatter("%(asctime)s %(name)s %(levelname)s [%(job)s] %(message)s", defaults={"job": "-"})
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
