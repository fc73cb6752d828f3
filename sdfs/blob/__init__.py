"""The blob file, bytes ↔ preamble, header and sections, with the dictionaries that its parts are deflated with.

Both processes run it. docs/FORMAT.md is normative: what is here is on disks, and changes only with the format. It imports `system`.
"""
