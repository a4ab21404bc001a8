"""DensePose maps over time: the sequence type, every form in and out, changes, fitting, alignment and pictures; no
torch."""

from .align import Alignment, aligned
from .charts import converted, convertible
from .clean import frames_with_holes, holes_filled, smoothed
from .colours import overlay, render_colours
from .edit import MIRRORED, edited, looped, mirrored, resampled, source_frames
from .fit import fitted, person_box
from .gaps import fill_gaps, frame_ranges
from .joints import BODY_VERSION, JOINT_INDEX, JOINTS, Joints
from .npz import has_joints, read_poses, write_poses
from .people import largest_alone, people, several
from .reading import (
    DEFAULT_FPS,
    MAX_FRAMES_READ,
    MAX_MAP_SIDE,
    Estimate,
    Photos,
    Reading,
    one_map,
    own_maps,
    read_any,
    read_image_map,
    read_image_poses,
)
from .sequence import NUM_PARTS, WINDOW, Charts, PoseSequence, window_indices
from .write import check_target, write_any

__all__ = [
    "BODY_VERSION",
    "DEFAULT_FPS",
    "JOINTS",
    "JOINT_INDEX",
    "MAX_FRAMES_READ",
    "MAX_MAP_SIDE",
    "MIRRORED",
    "NUM_PARTS",
    "WINDOW",
    "Alignment",
    "Charts",
    "Joints",
    "Estimate",
    "Photos",
    "PoseSequence",
    "Reading",
    "aligned",
    "check_target",
    "convertible",
    "converted",
    "edited",
    "fill_gaps",
    "fitted",
    "frame_ranges",
    "frames_with_holes",
    "has_joints",
    "holes_filled",
    "largest_alone",
    "looped",
    "mirrored",
    "one_map",
    "overlay",
    "own_maps",
    "people",
    "person_box",
    "read_any",
    "read_image_map",
    "read_image_poses",
    "read_poses",
    "render_colours",
    "resampled",
    "several",
    "smoothed",
    "source_frames",
    "window_indices",
    "write_any",
    "write_poses",
]
