"""Queued work that outlives the page: a SQLite store, two lanes of worker processes, one service in front."""
