"""What functions of users return and raise, where, and in which context they run. No client, no core."""
