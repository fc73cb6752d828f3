"""What the content of an open file is, in one value: whoever reads it once in a call has what belongs together.

Replaced in one assignment, under the inode's lock. How one becomes another is said in `sdfs.owner.tree.inode`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sdfs.blob.container import Preamble
from sdfs.errors import SdfsError
from sdfs.owner.index.preambles import whole
from sdfs.owner.store.store import Staged


@dataclass(frozen=True)
class Plain:
    """The tree's file is unwrapped: each handle reads and writes it through its own descriptor."""


@dataclass(frozen=True)
class Blob:
    """The tree's file is a blob, or a damaged one."""

    state: Preamble | SdfsError

    @property
    def preamble(self) -> Preamble | None:
        """None where it is damaged."""
        return self.state if isinstance(self.state, Preamble) else None

    def whole(self) -> Preamble:
        """Return the preamble, or raise what is wrong: DamagedError or StoreTooNew."""
        return whole(self.state)


@dataclass(frozen=True)
class Working:
    """One descriptor serves all handles until the last one closes."""

    fd: int
    staged: Staged | None  # where it is in staging; None: it was committed, and is the tree's file itself
    ahead: bool  # of the tree, which gets it with the next commit; only where it is in staging
    keep: bool  # the tree still has the blob that was copied, which the trash is to keep

    @property
    def shows(self) -> bool:
        """Whether it has the attributes to show, and not the tree's file."""
        return self.staged is None or self.ahead

    def changed(self) -> Working:
        """Return what it is once its content, or an attribute, was changed."""
        return self if self.shows else replace(self, ahead=True)


Content = Plain | Blob | Working
