"""Run jobs that outlive the page: a SQLite store, two queues of worker processes, and one service for the page."""
