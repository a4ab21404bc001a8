"""Every error this project raises on purpose, as one tree.

DreamPoseError
├── InputError        what the user gave cannot be used; its text is shown to the user as it stands
│   ├── ModelError    a model or subject folder cannot be used
│   │   └── Diverged  a loss is no longer a number
│   ├── UnknownJob    no such job, or it is somebody else's
│   ├── TooLarge      a file is larger than is accepted
│   └── Busy          too much waits or is kept already; the same can be asked for again later
├── StorageError      the disk cannot be written
│   └── DiskFull      there is no room on it; whoever waits can go on
├── ClusterAway       the computers that are to do the work cannot be used; whoever waits can go on
└── Cancelled         the user, or a shutdown, asked to stop
    └── LostClaim     another worker has taken the job over
"""


class DreamPoseError(Exception):
    """Base of all errors raised on purpose."""


class InputError(DreamPoseError):
    """What the user gave cannot be used. The text says what was given, what is accepted and what to do next."""


class ModelError(InputError):
    """A model or subject folder is missing, incomplete, or of another kind than is needed."""


class Diverged(ModelError):
    """A loss is no longer a number; the trained modules hold the weights of the last good checkpoint."""


class UnknownJob(InputError):
    """The job does not exist or belongs to somebody else; both give the same text."""


class TooLarge(InputError):
    """A file has more bytes than are accepted."""


class Busy(InputError):
    """Too much waits or is kept already, of everybody or of this owner; later the same is accepted."""


class StorageError(DreamPoseError):
    """The disk cannot be written; what was finished before is intact."""


class DiskFull(StorageError):
    """The disk, a quota or a size limit is full; the same work can go on when there is room."""


class ClusterAway(DreamPoseError):
    """The Ray cluster, or what is needed on it, is not there; its text is for the operator. The same work can go on
    when it is."""


class Cancelled(DreamPoseError):
    """Work stopped because `should_stop()` said so."""


class LostClaim(Cancelled):
    """A worker wrote to a job that is no longer its own: the lease ran out, or another worker has taken over."""


def shown(name: str) -> str:
    """A file's name for a sentence: in one line of at most 80 characters that can be printed anywhere."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    return name if len(name) <= 80 else f"{name[:40]}...{name[-35:]}"
