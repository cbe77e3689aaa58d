"""What a file may not say of itself: the layer and the site that its features belong to.

Both come from the caller, or else from the path: components such as `layer_5`, `transcoder` or `resid_post`. The name
of a repository is never looked at.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import get_args

from whence.components.sites import SITES, Site
from whence.errors import FileFormatError

TRANSCODER = "transcoder"
_LAYER = re.compile(r"(?:^|_)layer_?(\d+)(?:_|$)")
_WORDS: dict[str, str] = {
    **{site: site for site in SITES},
    **{"transcoder": TRANSCODER, "transcoders": TRANSCODER, "embedding": "embed"},
}


@dataclass(frozen=True, slots=True)
class Hints:
    """What the caller says, and where files lie.

    Args:
        layer: The caller's.
        site: The caller's.
        root: What is being read, on this machine.
        path: The same as the caller wrote it: neither the cache's folders nor the repository's name.
    """

    layer: int | None
    site: str | None
    root: Path
    path: PurePath

    def layer_of(self, file: Path) -> int:
        """The layer of a file.

        Raises:
            FileFormatError: Neither the caller nor the path says.
        """
        if self.layer is not None:
            return self.layer
        found = [match[1] for part in self._said(file).parts for match in _LAYER.finditer(PurePath(part).stem)]
        if not found:
            raise FileFormatError(f"{self._said(file)} does not say which layer it is for. Pass layer=, e.g. layer=5.")
        return int(found[-1])

    def site_of(self, file: Path) -> str:
        """The site of a file: an SAE's, or "transcoder".

        Raises:
            FileFormatError: Neither the caller nor the path says.
        """
        if self.site is not None:
            return self.site
        words = [_WORDS[part] for part in self._said(file).parts if part in _WORDS]
        if not words:
            raise FileFormatError(
                f"{self._said(file)} does not say which site it is for. Pass site=, one of {TRANSCODER}, "
                f"{', '.join(get_args(Site))}."
            )
        return words[-1]

    def _said(self, file: Path) -> PurePath:
        return self.path / file.relative_to(self.root)
