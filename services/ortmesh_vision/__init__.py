"""VisionService: tasks on pictures."""
