"""Large trees in CNCF distribution's layout, written straight to disk: the only file here that knows its paths."""

import hashlib
import os
import pathlib

from client import EMPTY, manifest, sha256
from seat import remove

BASE = "docker/registry/v2"
LAYERS_A_REPOSITORY = 2
TAGGED = "tagged"  # the one repository that has the many tags


def _write(path: str, data: bytes):
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(handle, data)
    os.close(handle)


def _link(directory: str, *parts: str, digest: str):
    """`directory` exists; `parts` below it are new, but for those a neighbour made."""
    for part in parts:
        directory = f"{directory}/{part}"
        try:
            os.mkdir(directory)
        except FileExistsError:
            pass
    _write(directory + "/link", digest.encode())


def blob_directory(root: pathlib.Path, digest: str) -> pathlib.Path:
    algorithm, hexadecimal = digest.split(":")
    directory = root / BASE / "blobs" / algorithm / hexadecimal[:2] / hexadecimal
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def place_blob(root: pathlib.Path, repository: str, digest: str, file: pathlib.Path):
    """A blob that costs no space: the same file on disk under a further name."""
    os.link(file, blob_directory(root, digest) / "data")
    algorithm, hexadecimal = digest.split(":")
    layer = root / BASE / "repositories" / repository / "_layers" / algorithm / hexadecimal
    layer.mkdir(parents=True)
    (layer / "link").write_text(digest)
    (layer.parents[2] / "_manifests").mkdir()


def grow(root: pathlib.Path, repositories: int, tags: int, blobs: int) -> list[str]:
    """`repositories` of them, each an image with some layers; one has `tags` tags; `blobs` blobs in all. The names, in order."""
    blob_base = f"{root}/{BASE}/blobs/sha256"
    os.makedirs(blob_base)
    for first in range(256):
        os.mkdir(f"{blob_base}/{first:02x}")

    def store(data: bytes) -> str:
        hexadecimal = hashlib.sha256(data).hexdigest()
        directory = f"{blob_base}/{hexadecimal[:2]}/{hexadecimal}"
        os.mkdir(directory)
        _write(directory + "/data", data)
        return "sha256:" + hexadecimal

    config = b"{}"
    image = manifest(config)
    digest = sha256(image)
    for data in (config, b"", image):
        store(data)
    layers = [store(b"layer %d of a large tree" % number) for number in range(blobs - 3)]

    repository_base = f"{root}/{BASE}/repositories"
    os.mkdir(repository_base)
    names = [f"team-{number // 100:03}/app-{number:05}" for number in range(repositories - 1)]
    image_hex = digest[7:]
    for number, name in enumerate([*names, TAGGED]):
        team, _, _ = name.rpartition("/")
        if team and number % 100 == 0:
            os.mkdir(f"{repository_base}/{team}")
        repository = f"{repository_base}/{name}"
        os.mkdir(repository)
        for own in ("_layers", "_layers/sha256", "_manifests", "_manifests/revisions", "_manifests/revisions/sha256", "_manifests/tags", "_uploads"):
            os.mkdir(f"{repository}/{own}")
        start = number * LAYERS_A_REPOSITORY % len(layers)
        for layer in {sha256(config), EMPTY, *layers[start:start + LAYERS_A_REPOSITORY]}:
            _link(f"{repository}/_layers/sha256", layer[7:], digest=layer)
        _link(f"{repository}/_manifests/revisions/sha256", image_hex, digest=digest)
        for tag in [f"v1.0.{tag}" for tag in range(tags)] if name == TAGGED else ["latest"]:
            _link(f"{repository}/_manifests/tags", tag, "current", digest=digest)
            _link(f"{repository}/_manifests/tags/{tag}", "index", "sha256", image_hex, digest=digest)
    # Distribution's order: directory by directory, "/" before every other character.
    return sorted([*names, TAGGED], key=lambda name: name.split("/"))


def forget_own_state(root: pathlib.Path):
    """Makes the tree new again to a registry that keeps an index beside distribution's directory."""
    for entry in root.iterdir():
        if entry.name != "docker":
            remove(entry)
