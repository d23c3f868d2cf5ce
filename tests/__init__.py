"""The tests: real servers first, doubles only where no real one can be had."""
