"""The DreamPose model: its config, what it is fed, its networks, the loop that denoises; loading and import of
weights."""
