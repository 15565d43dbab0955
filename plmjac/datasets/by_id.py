"""JSON files by protein id: lists of segments, secondary structures.

Ids are matched as the authors of Zhang et al. (2024) write them as well: `1A8LA` and `1A8LA.pdb` are 1A8L_A. The whole
file is held in memory.
"""

import json
from pathlib import Path
from typing import Any

from plmjac.datasets.base import InputError


class ById:
    """A JSON dictionary by protein id. Raises InputError naming the file where it is no dictionary."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise InputError(f"{self.path} is not JSON ({error}); it should be a dictionary by protein id") from None
        if not isinstance(content, dict):
            raise InputError(f"{self.path} holds a {type(content).__name__}; it should be a dictionary by protein id")
        self._said = {_plain(name): value for name, value in content.items()}

    def get(self, identifier: str) -> Any:
        """The entry of a protein; None where there is none."""
        return self._said.get(_plain(identifier))

    def __len__(self) -> int:
        return len(self._said)


def _plain(identifier: str) -> str:
    return identifier.removesuffix(".pdb").replace("_", "")
