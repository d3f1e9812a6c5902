"""What the demo can't go on without. Stage: shared."""


class DemoFailed(Exception):
    """The demo ends here; the text says what was wrong and, where there is one, what to do."""
