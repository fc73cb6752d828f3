"""What tests share: engines that stand in for the real one, processes that tests start, and what they look at.

waiting           until something holds
commands          `sdfs` as a user runs it
mounting          a mounted store
watching_daemon   the watching daemon, in a process of its own
machine           a machine of a user's, with systemd where there is one
hub_server        a hub of models
programs          programs of others

lossless_engine   an engine that keeps every picture; run, a mount with it
slow_engine       one that takes its time; run, a mount with it
gated_engine      one that a test holds up, and has fail
latent_engine     one whose pictures become latents
stand_in_engine   run, an engine process that does what its input says
lossless_daemon   run, the watching daemon with the lossless engine
command_server    run, `sdfs` as any user
automounter       run, an automounter as systemd is one

trees             whole files in a tree and out of it
photos            pictures that latents suit
picture_samples   picture files of every kind
small_models      autoencoders of diffusers' classes, small and with random weights
memory            what a script takes of it
recorder, replay  what operations do to the disk, and what a power loss leaves of it
architecture      who may import whom, as the documents say
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
