"""DockerIgnore: which files of a build context count.

Reads the file (comments, byte order mark, cleaned paths) and applies engine.dockerfile.patterns'
rules. Choosing `<Dockerfile>.dockerignore` over `.dockerignore`, and keeping an ignored Dockerfile
readable, is left to engine.build.
"""

from __future__ import annotations

from engine.dockerfile.lines import SPACES, Lines
from engine.dockerfile.patterns import Matcher
from engine.errors import DockerfileError, InvalidInput

FILE = ".dockerignore"


class DockerIgnore:
    """Answers for paths relative to the context's root, clean, with `/`. Not thread-safe."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    @classmethod
    def parse(cls, text: str | bytes, file: str = FILE) -> DockerIgnore:
        """Raises DockerfileError with the line of a pattern that is none."""
        lines = Lines(text, file)
        patterns = []
        while (line := lines.read()) is not None:
            pattern = line.strip(SPACES)
            if line.startswith("#") or not pattern:
                continue
            try:
                Matcher([pattern])
            except InvalidInput as error:
                raise DockerfileError(
                    error.message, line=lines.number, source=pattern, file=file, hint=error.hint
                ) from error
            patterns.append(pattern)
        return cls(Matcher(patterns))

    def ignores(self, path: str, is_dir: bool = False) -> bool:
        """Whether the path is left out. The root ("" or ".") never is.

        `is_dir` changes nothing: to Docker `build/` and `build` are the same pattern.
        """
        return path not in ("", ".") and self._matcher.matches(path)

    def may_contain_included(self, folder: str) -> bool:
        """False: all below this folder is ignored, so it need not be walked."""
        return folder in ("", ".") or self._matcher.may_take_back(folder)
