"""The owner's Unix socket: others use a store through the process that owns it.

Two requests a connection: `identify`, to which the owner shows the store's `Identity`, and another one. The client sends each as one line
of JSON, {"sdfs": version, "request": name, "arguments": {…}}; the owner answers with lines of JSON, each with the version, too:

    {"progress": [done, total]}         any number of them, for `sync`
    {"part": [entry, …]}                any number of them, for lists
    {"data": length}                    any number of them, for `read_to`; so many bytes of the file follow the line
    {"ok": result}                      the end
    {"error": [class name, message]}    the end; as `sdfs.errors.pack` makes it

Another version is answered with a sentence that names both. Within one, a field that is unknown is passed over, and a missing one
takes its default.

The socket is in a folder that only its user may enter; the store's lock file says where. Paths that cannot be decoded travel as lone
surrogates.

    requests   the one table of what may be asked, from which both sides are made
    values     typed values ↔ JSON, and what may arrive
    server     the owner's side
    client     the others'
"""

from sdfs.control.client import ControlClient
from sdfs.control.server import ControlServer, socket_path

__all__ = ["ControlClient", "ControlServer", "socket_path"]
