"""What the harness raises when the machine, not the library, is at fault."""

__all__ = ["HarnessError"]


class HarnessError(RuntimeError):
    """The test environment cannot do what a test needs; the text names the remedy."""
