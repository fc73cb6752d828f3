"""SDFS, a filesystem that keeps pictures as the latents of a neural autoencoder. Two processes, three pipes, and what they share.

The *owner* of a store (a mount, `sdfs add`, the watching daemon) is small and answers at once: `owner` and `mount`. The *engine*, its
child, holds the models: `codec`, run by `engine.service`. The pipes are `engine` (owner and engine), `control` (other programs and the
owner) and `mount` (the kernel and the owner). `system`, `blob`, `models`, `errors` and `settings` are open to both processes.

The way of a picture that is written: mount.operations → owner.tree.handle, inode → owner.index.pending → owner.jobs.compressor →
engine.client ‖ engine.service → codec.codec → codec.pictures, autoencoders, coding → blob.container ‖ → owner.tree.install →
owner.store. Of one that is read: mount.operations → owner.tree.handle → owner.renders → engine.client ‖ engine.service → codec.codec.

docs/ARCHITECTURE.md says who may import whom; tests/unit/test_imports.py holds everybody to it.
"""
