"""The pure core: events and `now` in, commands out. No I/O, no threads, no clock, no chance."""
