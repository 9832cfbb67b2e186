"""The 0.x interface: programs written the 0.x way, and 0.7.0 itself as the counterpart."""
