"""Where weights live: saving, loading and (later) downloading encoders."""
