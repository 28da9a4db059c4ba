"""The parts of compare-channel."""
