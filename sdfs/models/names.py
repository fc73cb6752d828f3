"""What a model may be called, and which models' latents mean the same.

The table is from memory of the public hub (docs/MODELS.md); it has no commits, which are found when a model is pulled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sdfs.errors import ModelError


@dataclass(frozen=True)
class Known:
    name: str
    path: str  # org/name[/subfolder] on the hub
    space: str  # models of the same space decode each other's latents, once scaled and shifted


KNOWN = (
    Known("sd-vae", "CompVis/stable-diffusion-v1-4/vae", "sd"),
    Known("sd-vae-ft-ema", "stabilityai/sd-vae-ft-ema", "sd"),  # of this and the next, only the decoder was trained on
    Known("sd-vae-ft-mse", "stabilityai/sd-vae-ft-mse", "sd"),
    Known("taesd", "madebyollin/taesd", "sd"),
    Known("sdxl-vae", "stabilityai/sdxl-vae", "sdxl"),
    Known("sdxl-vae-fp16-fix", "madebyollin/sdxl-vae-fp16-fix", "sdxl"),
    Known("taesdxl", "madebyollin/taesdxl", "sdxl"),
    Known("sd3", "stabilityai/stable-diffusion-3-medium-diffusers/vae", "sd3"),
    Known("sd3.5", "stabilityai/stable-diffusion-3.5-medium/vae", "sd3"),
    Known("taesd3", "madebyollin/taesd3", "sd3"),
    Known("flux", "black-forest-labs/FLUX.1-dev/vae", "flux.1"),
    Known("flux-schnell", "black-forest-labs/FLUX.1-schnell/vae", "flux.1"),
    Known("taef1", "madebyollin/taef1", "flux.1"),
    Known("dc-ae-f32c32", "mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers", "dc-ae-f32c32-sana-1.1"),
    Known("dc-ae-f32c32-sana-1.0", "mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers", "dc-ae-f32c32-sana-1.0"),
    Known("dc-ae-f32c32-mix", "mit-han-lab/dc-ae-f32c32-mix-1.0-diffusers", "dc-ae-f32c32-mix-1.0"),
    Known("dc-ae-f32c32-in", "mit-han-lab/dc-ae-f32c32-in-1.0-diffusers", "dc-ae-f32c32-in-1.0"),
    Known("dc-ae-f64c128", "mit-han-lab/dc-ae-f64c128-mix-1.0-diffusers", "dc-ae-f64c128-mix-1.0"),
    Known("dc-ae-f64c128-in", "mit-han-lab/dc-ae-f64c128-in-1.0-diffusers", "dc-ae-f64c128-in-1.0"),
    Known("dc-ae-f128c512", "mit-han-lab/dc-ae-f128c512-mix-1.0-diffusers", "dc-ae-f128c512-mix-1.0"),
    Known("dc-ae-f128c512-in", "mit-han-lab/dc-ae-f128c512-in-1.0-diffusers", "dc-ae-f128c512-in-1.0"),
)
_OF_NAMES = {known.name: known for known in KNOWN}
_OF_PATHS = {known.path: known for known in KNOWN}

_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?"  # neither ".", ".." nor hidden
_HUB_ID = re.compile(rf"({_WORD}/{_WORD})((?:/{_WORD})*)(?:@({_WORD}(?:/{_WORD})*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """A folder of a repository on the hub, at a revision: a branch, tag, or commit."""

    repository: str  # org/name
    subfolder: str  # "" for the repository's root
    revision: str

    @property
    def path(self) -> str:
        return f"{self.repository}/{self.subfolder}" if self.subfolder else self.repository

    @property
    def is_pinned(self) -> bool:
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        return f"{self.path}@{self.revision}"

    def file(self, name: str) -> str:
        """The path, within the repository, of the file `name` of the folder."""
        return f"{self.subfolder}/{name}" if self.subfolder else name


def is_folder(name: str) -> bool:
    """Whether `name` means a folder of this machine: told by its beginning, so that it means the same in every working directory."""
    return name.startswith(("/", "./", "../", "~/")) or name in (".", "..")


def parse(name: str) -> Source:
    """A short name or org/name[/subfolder], with or without @revision; raises ModelError. Safe for names out of blobs."""
    short, at, revision = name.partition("@")
    known = _OF_NAMES.get(short)
    match = _HUB_ID.fullmatch(f"{known.path}{at}{revision}" if known else name)
    if not match:
        raise ModelError(f'{name}: want a name that "sdfs model list" shows, org/name[/subfolder][@revision], or a folder (./{name})')
    return Source(match[1], match[2].removeprefix("/"), match[3] or "main")


def short_name(source: Source) -> str | None:
    known = _OF_PATHS.get(source.path)
    return known.name if known else None


def compatible(id_a: str, id_b: str) -> bool:
    """Whether each model decodes the other's latents. That is known of the table's, not guessed from numbers of channels."""
    return id_a == id_b or (_space(id_a) is not None and _space(id_a) == _space(id_b))


def _space(id: str) -> str | None:
    known = _OF_PATHS.get(id.partition("@")[0])
    return known.space if known else None
