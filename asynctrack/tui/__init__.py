"""The runs of a store in a terminal, live: ``asynctrack top`` (extra ``tui``)."""
