"""Commands that measure: steps, their growth, reading data, start-up, saving."""
