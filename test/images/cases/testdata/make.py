"""Makes the JPEGs that Go's encoder cannot write, in the folder of this file. Needs Pillow."""
import math
import os

from PIL import Image

os.chdir(os.path.dirname(os.path.abspath(__file__)))
photo = Image.new("RGB", (96, 64))
photo.putdata([
    tuple(int(128 + 90 * math.sin(x / 9 + k) * math.cos(y / 7) + (x * 7919 + y * 104729 + k * 31) % 37 - 18) for k in range(3))
    for y in range(64) for x in range(96)
])
photo.save("restarts.jpg", quality=90, restart_marker_rows=1)
photo.save("progressive.jpg", quality=80, progressive=True, subsampling=2)
photo.save("one-scan.jpg", quality=90, subsampling=0)
ink = photo.convert("CMYK")
ink.save("cmyk.jpg", quality=80)
photo.save("photo.png")
