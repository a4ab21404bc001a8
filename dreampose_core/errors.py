"""All errors that this project raises deliberately, as one tree.

DreamPoseError
├── InputError        unusable input; its text is shown to the user unchanged
│   ├── ModelError    a model or subject folder cannot be used
│   │   └── Diverged  a loss is no longer finite
│   ├── UnknownJob    no such job, or it has another owner
│   ├── TooLarge      a file exceeds the size limit
│   └── Busy          a limit of waiting or stored jobs is reached; try again later
├── StorageError      a disk write failed
│   └── DiskFull      no space left; the work can resume later
├── ClusterAway       the Ray cluster cannot be used; the work can resume later
└── Cancelled         the user, or a shutdown, requested a stop
    └── LostClaim     another worker has taken over the job
"""


class DreamPoseError(Exception):
    """Base class of all errors raised deliberately."""


class InputError(DreamPoseError):
    """The user's input cannot be used. The text says what was given, what is accepted and what to do next."""


class ModelError(InputError):
    """A model or subject folder is missing, incomplete, or of the wrong kind."""


class Diverged(ModelError):
    """A loss is no longer finite; the trained modules hold the weights of the last good checkpoint."""


class UnknownJob(InputError):
    """The job does not exist or has another owner; both give the same text."""


class TooLarge(InputError):
    """A file exceeds the size limit."""


class Busy(InputError):
    """A limit of waiting or stored jobs is reached, in total or for this owner; the same request may succeed later."""


class StorageError(DreamPoseError):
    """A disk write failed; work finished before is intact."""


class DiskFull(StorageError):
    """The disk, a quota or a size limit is full; the work can resume when there is space."""


class ClusterAway(DreamPoseError):
    """The Ray cluster, or something it needs, is unavailable; the text is for the operator. The work can resume when it
    is back."""


class Cancelled(DreamPoseError):
    """Work stopped because `should_stop()` returned true."""


class LostClaim(Cancelled):
    """A worker wrote to a job that it no longer holds: the lease expired, or another worker has taken over."""


def shown(name: str) -> str:
    """Format a file's name for a message: printable, in one line of at most 80 characters."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= 80 else f"{name[:40]}...{name[-35:]}"
