"""The parts of the stream that plays while a video is made: each chunk becomes one once, for all who watch, not once
for each of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

import gradio as gr
from starlette.concurrency import run_in_threadpool

KEPT = 4  # jobs; those that were watched longest ago go first


class _Parts:
    """The parts of one job's stream so far; each goes on in time, and in its packets' numbers, where the last one
    ended."""

    def __init__(self):
        self.lock = asyncio.Lock()
        self.made: list[dict] = []
        self._counters: dict[int, int] = {}

    def make(self, chunk: str) -> None:
        info = gr.Video.probe_chunk(chunk)
        time = sum(part["duration"] for part in self.made)
        counters = dict(self._counters)
        data = gr.Video.mux_segment(chunk, info["video_codec"], b"", time, 0.0, info["video_start"], counters)
        self._counters = counters
        self.made.append({"data": data, "duration": info["duration"], "extension": ".ts"})


class SharedStream:
    """What a gr.Video's `stream_output` does, for videos that are chunks 000000.mp4, 000001.mp4, ... without sound in a
    job's folder.

    Gradio's own runs ffprobe and ffmpeg for every chunk and every watcher, in the threads that answer all other
    requests, and keeps a copy for each.
    """

    def __init__(self):
        self._jobs: OrderedDict[Path, _Parts] = OrderedDict()

    async def stream_output(self, value: str | None, output_id: str, first_chunk: bool) -> tuple[dict | None, dict]:
        """The part that `value` becomes, None for none, and the file that the player is told of."""
        file = {
            "path": output_id,
            "is_stream": True,
            "orig_name": "video-stream.mp4",
            "meta": {"_type": "gradio.FileData"},
        }
        return None if value is None else await self._part(Path(value)), file

    async def _part(self, chunk: Path) -> dict | None:
        parts = self._jobs.setdefault(chunk.parent, _Parts())
        self._jobs.move_to_end(chunk.parent)
        while len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)
        index = int(chunk.stem)
        async with parts.lock:
            while len(parts.made) <= index:  # a thread that has begun is waited for, also when the watcher leaves
                given = chunk.with_stem(f"{len(parts.made):06d}")
                try:
                    await run_in_threadpool(parts.make, str(given))
                except Exception:
                    if given.exists():
                        raise
                    return None  # its owner has just deleted the job
        return parts.made[index]
