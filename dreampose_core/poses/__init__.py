"""Pose maps over time: the sequence type, reading and writing of all formats, editing, fitting, alignment, rendering.

This room does not use torch.
"""

# The names imported here are the room's interface.

from .align import aligned
from .clean import frames_with_holes
from .edit import MIRRORED, edited, fitted, mirrored, person_box, source_frames
from .npz import read_poses, write_poses
from .numbered import MAX_FRAMES_READ, frame_ranges
from .people import largest_alone, people, several
from .reading import Estimate, image_poses_of, is_densepose_of, poses_beside, read_any, read_image_map
from .sequence import JOINT_INDEX, JOINTS, NUM_PARTS, WINDOW, Charts, Joints, PoseSequence, window_indices
from .sources import MAX_MAP_SIDE, Frames, Reading
from .write import check_target, overlay, render_colours, write_any
