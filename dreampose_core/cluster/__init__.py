"""Jobs on a Ray cluster: a pool of warm models, one a GPU, and the engine that has them work; ray is imported here
alone."""
