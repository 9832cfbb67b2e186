"""What parses bytes from outside, given any bytes: quick by Hypothesis, at length by atheris (`make fuzz`)."""
