"""The pipe between a store's owner and the process that holds the models.

interface  what the owner asks of an engine; the owner's side
client     starts the process, and asks it; the owner's side
requests   what waits, and in which order; the owner's side
child      the process, as its parent sees it
messages   bytes on the pipe; both sides
service    the process itself: it is run, never imported, and alone imports `codec`

It imports `settings` and `system`.
"""
