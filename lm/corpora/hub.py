"""A data set of the Hugging Face hub: its .parquet files, and never a script (extra `data`).

    python -m lm.train corpus=hub corpus.dataset=OWNER/SET corpus.split=train corpus.field=text

huggingface_hub fetches into its own cache; HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and `hf auth login`
are its own. The commit that was read is part of `source`, so data.json records it. When the set has
changed since, resume refuses the other text: give corpus.revision=COMMIT from the start for a run
that is to go on later. What was fetched whole is listed in the folder hub of the cache, and is read
when the hub does not answer.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from lm.config import HubConfig
from lm.corpora.base import Corpus
from lm.corpora.formats import Reader
from lm.system import files
from lm.system.errors import ConfigError, DamagedError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger(__name__)
TIMEOUT = 10.0  # seconds until the hub has to answer
ALIASES = {"valid": "validation", "val": "validation", "dev": "validation", "eval": "test"}
SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test|eval)(?![a-z])")
SHARD = re.compile(r"(\w[\w.]*?)-\d{5}-of-\d{5}")
ACCESS = "ask for access on its page, then log in with: hf auth login"
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
Layout = dict[str, dict[str, list[str]]]  # config: split: names of files


class Listing(msgspec.Struct):
    """The files of one commit of a data set."""

    revision: str
    layout: Layout


class Hub(Corpus):
    """The rows of one split, shard after shard by name, out of the column `corpus.field`."""

    cfg: HubConfig

    def __init__(self, cfg: HubConfig):
        super().__init__(cfg)
        self.listing: Listing | None = None  # of the commit that this process reads
        self.shards: dict[str, Path] = {}

    def source(self) -> dict[str, object]:
        shards = self.fetched()
        assert self.listing is not None
        return {
            "name": "hub",
            "dataset": self.cfg.dataset,
            "revision": self.listing.revision,
            "field": self.cfg.field,
            "files": [{"name": name, "sha256": _checked(path)} for name, path in shards.items()],
        }

    def documents(self) -> Iterator[str]:
        reader = Reader(self.cfg.field)
        for path in self.fetched().values():
            yield from reader.documents(path)

    def fetched(self) -> dict[str, Path]:
        """Where each shard lies, by its name on the hub; all are fetched before one is read."""
        if not self.shards:
            try:
                import huggingface_hub
            except ImportError:
                raise ConfigError(
                    "corpus=hub needs huggingface_hub: pip install huggingface_hub"
                ) from None
            logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
            api = huggingface_hub.HfApi()
            listing, is_known = self._list(api)
            shards = {}
            for name in self._chosen(listing):
                shards[name] = self._fetch(api, name, listing.revision, is_known)
            self.listing, self.shards = listing, shards
            if not is_known:
                record = self._record()
                files.make_folder(record.parent)
                files.atomic_write(record, files.to_json(listing))
        return self.shards

    # ------------------------------------------------------------------------- what is there

    def _record(self) -> Path:
        key = [self.cfg.dataset, self.cfg.revision, self.cfg.config, self.cfg.split]
        return files.cache_dir() / "hub" / f"{files.fingerprint(key)}.json"

    def _list(self, api: "HfApi") -> tuple[Listing, bool]:
        """The files of the commit, and whether they are known of before as the hub is away."""
        from huggingface_hub import errors

        where = f"corpus.dataset={self.cfg.dataset}"
        try:
            info = api.dataset_info(self.cfg.dataset, revision=self.cfg.revision, timeout=TIMEOUT)
        except errors.GatedRepoError:
            raise ConfigError(f"{where} is gated: {ACCESS}") from None
        except errors.RevisionNotFoundError:
            raise ConfigError(
                f"corpus.revision={self.cfg.revision}: {self.cfg.dataset} has no such branch, tag "
                "or commit"
            ) from None
        except errors.RepositoryNotFoundError:
            raise ConfigError(
                f"{where} is not on the hub, or private: check the name; if it is, {ACCESS}"
            ) from None
        except Exception as error:  # what the client raises changes from version to version
            return self._known(error), True
        names = [sibling.rfilename for sibling in info.siblings or []]
        card = info.card_data.to_dict() if info.card_data else {}
        found = layout(names, card.get("configs"))
        if not found:
            raise ConfigError(
                f"{where} has no .parquet files, and nothing else is read of it: try "
                "corpus.revision=refs/convert/parquet, to which the hub converts many sets"
            )
        if not COMMIT.fullmatch(str(info.sha)):
            raise DamagedError(f"{where}: the hub names the commit {str(info.sha)[:60]!a}")
        return Listing(str(info.sha), found), False

    def _known(self, error: Exception) -> Listing:
        """What was fetched before; ConfigError if nothing was."""
        problem = _in_a_line(error)
        record = self._record()
        if not record.is_file():
            raise ConfigError(
                f"corpus.dataset={self.cfg.dataset}: the hub does not answer, and this split was "
                f"not fetched before ({problem})"
            ) from None
        listing = files.read_record(record, Listing)
        log.info(
            f"{self.cfg.dataset}: {listing.revision[:12]}, fetched before, is read, as the hub "
            f"gives no list ({problem})"
        )
        return listing

    def _chosen(self, listing: Listing) -> list[str]:
        """The names of the shards to read; ConfigError lists what there is."""
        configs = listing.layout
        config = self.cfg.config or ("default" if "default" in configs else "")
        if not config and len(configs) == 1:
            config = next(iter(configs))
        if config not in configs:
            raise ConfigError(
                f"corpus.config={config}: {self.cfg.dataset} has {_some(configs)}; give one of them"
            )
        splits = configs[config]
        if self.cfg.split not in splits:
            raise ConfigError(
                f"corpus.split={self.cfg.split}: {self.cfg.dataset} has {_some(splits)} in "
                f"{config}; give one of them"
            )
        return splits[self.cfg.split]

    def _fetch(self, api: "HfApi", name: str, revision: str, is_known: bool) -> Path:
        try:
            path = api.hf_hub_download(
                self.cfg.dataset,
                name,
                repo_type="dataset",
                revision=revision,
                etag_timeout=TIMEOUT,
                local_files_only=is_known,
            )
        except Exception as error:  # what the client raises changes from version to version
            if isinstance(error, OSError) and error.errno:  # a full disk keeps its exit code
                raise
            if "gated" in type(error).__name__.lower():
                raise ConfigError(f"corpus.dataset={self.cfg.dataset} is gated: {ACCESS}") from None
            raise ConfigError(
                f"corpus.dataset={self.cfg.dataset}: {name} could not be fetched "
                f"({_in_a_line(error)}); the same command goes on where it ended"
            ) from None
        return Path(path)


def layout(names: Iterable[str], card: object = None) -> Layout:
    """The .parquet files by config and split, as the set's card says, else as their names do.

    layout(["data/train-00000-of-00001.parquet"])       # {"default": {"train": [...]}}

    Raises DamagedError for a name that leads out of the set.
    """
    shards = sorted(name for name in names if name.endswith(".parquet"))
    for name in shards:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise DamagedError(f"the hub lists a file {name[:100]!a}, which leads out of the set")
    found: Layout = {}
    for config in card if isinstance(card, list) else []:
        if isinstance(config, Mapping):
            splits = _of_card(shards, config)
            if splits:
                found[str(config.get("config_name", "default"))] = splits
    if found:
        return found
    for name in shards:
        config, split = _of_name(name)
        found.setdefault(config, {}).setdefault(split, []).append(name)
    return found


def _of_card(shards: list[str], config: Mapping[str, object]) -> dict[str, list[str]]:
    """The files of each split by the `data_files` of one entry of a card's `configs`."""
    entries = config.get("data_files")
    if isinstance(entries, str) or (
        isinstance(entries, list) and all(isinstance(entry, str) for entry in entries)
    ):
        entries = [{"split": "train", "path": entries}]
    found: dict[str, list[str]] = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, Mapping):
            continue
        given = entry.get("path")
        patterns = [_glob(str(p)) for p in (given if isinstance(given, list) else [given])]
        matching = [name for name in shards if any(p.fullmatch(name) for p in patterns)]
        if matching:
            found[str(entry.get("split", "train"))] = matching
    return found


def _glob(pattern: str) -> re.Pattern[str]:
    """A pattern of a card: * is within a folder, ** over folders."""
    parts = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", pattern.removeprefix("./")[:500])
    return re.compile("".join(parts.get(piece, re.escape(piece)) for piece in pieces))


def _of_name(name: str) -> tuple[str, str]:
    """The config and the split of a file: CONFIG/SPLIT-00000-of-00002.parquet, or
    CONFIG/SPLIT/0000.parquet; the folder `data` is no config, and train what nothing else says."""
    path = PurePosixPath(name)
    folders = [folder for folder in path.parts[:-1] if folder != "data"]
    shard = SHARD.match(path.stem)
    word = SPLIT.search(path.stem.lower())
    if shard:
        split = shard[1]
    elif word:
        split = ALIASES.get(word[1], word[1])
    elif folders and (path.stem.isdecimal() or SPLIT.fullmatch(folders[-1].lower())):
        split = folders.pop()
    else:
        split = "train"
    return "/".join(folders) or "default", split


def _checked(path: Path) -> str:
    """The sha256 of a shard; DamagedError if it is not the one by which the hub knows it."""
    sha256 = files.sha256(path)
    blob = path.resolve()  # the client calls a large file by its sha256
    if SHA256.fullmatch(blob.name) and blob.name != sha256:
        raise DamagedError(f"{path} is not what the hub has: remove {blob} to fetch it again")
    return sha256


def _some(names: Iterable[str]) -> str:
    listed = [name[:60] for name in names]
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return ", ".join(listed[:20]) + more


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
