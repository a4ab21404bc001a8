"""The DreamPose model: config, conditioning, networks and denoising loop; loading, saving and importing weights."""
