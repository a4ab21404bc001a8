"""A body: the skeleton, the rounded cones on it, drawn as pose maps; fitted to people in pictures."""
