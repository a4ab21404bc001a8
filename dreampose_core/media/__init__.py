"""Pictures and video in and out: the only place where pixels are decoded and encoded; no torch.

ffmpeg is run directly rather than through imageio's writer, because that one never looks at ffmpeg's exit status: a
disk that fills up in the last moments would leave a broken video and no error.
"""

from .images import (
    Box,
    check_aspect,
    crop_box,
    fit_image,
    from_pil,
    open_picture,
    pad_box,
    placement,
    read_image,
    read_photo,
    same_aspect,
    write_png,
)
from .sound import add_sound, extract_sound
from .video_reading import MAX_FPS, MAX_SECONDS, MAX_SIDE, VideoInfo, is_video, probe_video, read_video
from .video_writing import join_videos, write_gif, write_video

__all__ = [
    "MAX_FPS",
    "MAX_SECONDS",
    "MAX_SIDE",
    "Box",
    "VideoInfo",
    "add_sound",
    "check_aspect",
    "crop_box",
    "extract_sound",
    "fit_image",
    "from_pil",
    "is_video",
    "join_videos",
    "open_picture",
    "pad_box",
    "placement",
    "probe_video",
    "read_image",
    "read_photo",
    "read_video",
    "same_aspect",
    "write_gif",
    "write_png",
    "write_video",
]
