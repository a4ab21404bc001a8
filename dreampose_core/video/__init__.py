"""Frames to MP4 and GIF and back, through the ffmpeg program that comes with imageio-ffmpeg; no torch.

ffmpeg is run directly rather than through imageio's writer, because that one never looks at ffmpeg's exit status: a disk that
fills up in the last moments would leave a broken video and no error.
"""

from .reading import MAX_FPS, MAX_SECONDS, MAX_SIDE, VideoInfo, is_video, probe_video, read_video
from .sound import add_sound, extract_sound
from .writing import join_videos, write_gif, write_video

__all__ = [
    "MAX_FPS", "MAX_SECONDS", "MAX_SIDE", "VideoInfo", "add_sound", "extract_sound", "is_video", "join_videos", "probe_video", "read_video",
    "write_gif", "write_video",
]
