"""Charts as geometry: what the templates draw as SVG on the server. No script draws anything.

Horizontal places are per cent of the plot's width and vertical ones are pixels, so that a chart fills a phone and a
wide screen alike while its text keeps its size.
"""
