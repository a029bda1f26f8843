"""Bring a browser for the tests of the console into the virtual environment, and nothing beside it.

    python tools/get_browser.py [FOLDER]

Chromium's headless shell, from the npm package @sparticuz/chromium (MIT), which holds the browser and the few
libraries it needs: 65 MB to fetch, 200 MB on disk, about ten seconds. Needs npm, runs no script of a package,
and checks what came by its hash. Does nothing where the tests find a browser as it is.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@sparticuz/chromium@153.0.0"
SHA512 = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Libraries and fonts of its own are used only where the machine has none.
STARTER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
if ldd "$here/headless_shell" | grep -q "not found"; then
    export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
[ -e /etc/fonts/fonts.conf ] || export FONTCONFIG_PATH="$here/fonts"
exec "$here/headless_shell" "$@"
"""
UNPACK = (
    "const [from, to] = process.argv.slice(1), fs = require('fs');"
    "fs.createReadStream(from).pipe(require('zlib').createBrotliDecompress()).pipe(fs.createWriteStream(to))"
)


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sys.prefix) / "browser"
    found = next(filter(None, map(shutil.which, (str(folder / "chromium"), *NAMES))), None)
    if found is not None:
        print(f"there is a browser: {found}")
        return 0
    missing = [program for program in ("npm", "node") if shutil.which(program) is None]
    if missing:
        print(f"no browser, and no {missing[0]} to bring one: the tests that need one are skipped")
        return 1
    with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as name:
        draft = Path(name) / "browser"
        _unpack(_fetched(Path(name)), draft)
        draft.rename(folder)
    version = subprocess.run([folder / "chromium", "--version"], check=True, capture_output=True, text=True)
    print(f"{version.stdout.strip()} in {folder}")
    return 0


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _fetched(folder: Path) -> Path:
    """The package as npm gives it, once it is known to be the one."""
    command = ["npm", "pack", PACKAGE, "--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    [package] = folder.glob("*.tgz")
    if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != SHA512:
        raise SystemExit(f"{PACKAGE} is not the file that was looked at: nothing of it was used")
    return package


def _extract(archive: tarfile.TarFile, into: Path, wanted: list[tarfile.TarInfo] | None = None) -> None:
    """As data, nothing outside of ``into``; Python before 3.11.4 has no such filter (the hash was right)."""
    archive.extraction_filter = getattr(tarfile, "data_filter", None)
    archive.extractall(into, wanted)


def _unpack(package: Path, folder: Path) -> None:
    packed = folder.parent / "package" / "bin"
    with tarfile.open(package) as archive:
        wanted = [each for each in archive.getmembers() if each.name.startswith("package/bin/")]
        _extract(archive, folder.parent, wanted)
    folder.mkdir()
    (folder / "fonts").mkdir()
    _decompress(packed / "chromium.br", folder / "headless_shell")
    for name, into in (("al2023", folder), ("swiftshader", folder), ("fonts", folder / "fonts")):
        plain = packed / f"{name}.tar"
        _decompress(packed / f"{name}.tar.br", plain)
        with tarfile.open(plain) as archive:
            _extract(archive, into)
    (folder / "chromium").write_text(STARTER)
    for program in ("headless_shell", "chromium"):
        (folder / program).chmod(0o755)


def _decompress(source: Path, target: Path) -> None:
    subprocess.run(["node", "-e", UNPACK, str(source), str(target)], check=True)


if __name__ == "__main__":
    sys.exit(main())
