"""A store that is owned. The process that has the store's lock runs it: it is small, answers at once, and a slow call is a fault here.

owner        all of it together, for one store: its life
services     what clients may ask
file_status  what is said of one file
census       how many files there are of each kind
access       how a program uses a store: through its owner, or as its owner
serving      others use the store through this process
store        the backing folder
index        what the owner remembers, and a scan rebuilds
renders      what readers get
tree         names and open files, as the kernel sees them
jobs         what changes files besides their users

It imports `settings`, `system`, `blob`, `models`, `engine` without `engine.service`, and `control`.
"""
