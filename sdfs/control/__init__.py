"""The owner's Unix socket: others use a store through the process that owns it.

Two requests a connection: `identify`, to which the owner shows the store's `Identity`, and another one. The client sends each as one line
of JSON, {"request": name, "arguments": {…}}; the owner answers with lines of JSON. Every line has "sdfs", the protocol's version, too:

    {"progress": [done, total]}         any number of them, for `sync`
    {"part": [entry, …]}                any number of them, for `list` and `trashed`
    {"data": length}                    any number of them, for `read_to`; so many bytes of the file follow the line
    {"ok": result}                      the end
    {"error": [class name, message]}    the end; a class of `sdfs.errors`

The socket is in a folder that only its user may enter; the store's lock file says where. Paths that cannot be decoded travel as lone
surrogates.

    requests   what may be asked: the table that both sides are made from
    answers    what is answered; both sides
    values     requests and answers ↔ JSON; both sides
    server     the owner's side
    client     the others'

It imports `settings` and `system`.
"""
