"""A body of bones and rounded cones: fitted to a person in a picture, drawn as pose maps in any motion."""
