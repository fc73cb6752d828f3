"""Bytes against looks: SDFS's codec beside AVIF, JPEG, WebP, JPEG XL, and what is published of others.

pictures.py    sets of pictures by kind
codecs.py      the codecs, each through a library that is kept up; or a callable of one's own
scores.py      how far a decoded picture is from its original; perceptual.py: by networks; noise.py: on calm ground
measuring.py   pictures through codecs; results.py: what was measured, kept in a file
curves.py      rate-distortion curves, their envelope, and how many bytes one saves over another
tables.py      what is shown; published.py: beside what is published of Kodak; cost.py: kMAC a pixel
figures.py     curves drawn; squares.py: pictures side by side

From a program, as while a codec is trained (`code`: pixels and quality to bytes and pixels; no file keeps what has no version):

    codec = Codec("step 4000", "step 4000", version="", steps=QUICK_QUALITIES, code=code)
    measure(pictures, [original()], NOISE, results := Results(path))
    measure(pictures, [codec, *avif()], QUICK, results)
    percent, pictures_compared = bd_rate(results, pictures, avif(), [codec], "ssimulacra2", (0.1, 0.6))
"""
