"""A body: the skeleton, the rounded cones on it, fitted to people in pictures, drawn as pose maps in any motion."""
