"""Bytes against looks: SDFS's bundled codec beside JPEG, WebP, AVIF and JPEG XL.

codecs.py      the codecs, each through a library that is kept up
scores.py      how far a decoded picture is from its original, in four ways
curves.py      rate-distortion curves, and how many bytes one saves over another
measuring.py   pictures through codecs: the curves, and the best below a size
tables.py      the terminal; figures.py: curves drawn; sheets.py: pictures side by side
"""
