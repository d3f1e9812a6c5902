"""Where models' files come from: one file a kind of source, listed here. Stage: store.

A kind brings what a `Source` of a card names into the cache (an archive) or into a folder (single files), and
knows nothing of the store, recipes or checksums of files.
"""

from __future__ import annotations

from ortmesh.serving.sources import bucket, hub, local, npm, pypi, web
from ortmesh.serving.sources.fetching import Fetch

FETCHES: dict[str, Fetch] = {
    "pypi": pypi.fetch,
    "npm": npm.fetch,
    "https": web.fetch,
    "http": web.fetch,
    "s3": bucket.fetch,
    "gs": bucket.fetch,
    "hf": hub.fetch,
    "file": local.fetch,
}
"""What a source's scheme means."""
