"""Queued work that outlives the page: a SQLite store, two queues of worker processes, one service in front."""
