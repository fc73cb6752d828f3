"""What the mount costs: native folder, plain passthrough in the same binding and SDFS, side by side.

systems    the three, mounted, looked at, and never left behind
figures    samples of many rounds, and their medians as tables
files      files that are no pictures: writing, reading, creating, looking, removing
listing    `ls -l` of large folders of blobs
mounting   how long a mount takes to be there, and the memory that it takes
photos     the pictures, and the same as AVIF and JPEG XL
decoding   decoding them in a process of its own, without a filesystem
pictures   reading them: cold and warm, one, eight at once, a whole folder
memory     the peak while large pictures go in and out
"""
