"""Read and write pictures, video and sound: the only place that decodes and encodes pixels; no torch.

The package runs ffmpeg directly and not through imageio's writer, which ignores ffmpeg's exit status: a disk that fills
up at the end would leave a broken video and no error.
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
    reduced_by,
    same_aspect,
    shrunk,
    write_png,
)
from .video_reading import VideoInfo, is_video, probe_video, read_video
from .video_writing import add_sound, extract_sound, join_videos, write_gif, write_video
