"""Charts as geometry, which the templates render as SVG on the server, without scripts.

Horizontal positions are per cent of the plot's width and vertical ones are pixels, so a chart fills both a phone and a
wide screen while its text keeps its size.
"""
