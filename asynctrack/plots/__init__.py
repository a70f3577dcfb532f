"""Drawing series of points: for terminals, as SVG, as a page."""
