"""What a node measures of itself: its load, its processes, the trees of its jobs."""
