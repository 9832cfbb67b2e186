"""The public Producer, its futures and its threads."""
