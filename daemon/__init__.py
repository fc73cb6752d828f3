"""The watched folder: pictures that land in a folder move into a store. `sdfs-daemon`, also `sdfs watch`; see docs/WATCHING.md.

    watching ── events ──▶ settling ── finished files ──▶ taking ──▶ the store, through `session`
       ▲ scanning                                           │
       └────────── folder.FolderWatch, a thread for each watched folder ──▶ ledger: what must outlast the process

`service` runs the watches of a configuration; `status` tells what they did.
"""
