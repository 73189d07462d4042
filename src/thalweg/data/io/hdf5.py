"""What an HDF5 file holds: `inspect` looks without reading any array, and refuses what no AnnData needs.

HDF5 lets a file name other files (external links, external storage, virtual datasets), itself (soft links, groups
linked in a ring) and types that are addresses; and a few bytes may stand for any number of them. Three things decide
how much memory a file takes:

- the declared size of a dataset, or of one of its chunks if that is more;
- a compressed chunk, which may decompress to more than it declares: deflate reaches 1032 bytes for one;
- text of free length, which lies in heaps outside the dataset: many entries may name one long text. A heap starts with
  its size, so the longest text is known from a search of the file for heaps.

The HDF5 library itself may end the process, or never end, on damaged bytes. `rehearse` therefore does in a process of
its own what the real reading does, and the file is opened again only if that went well. This module imports nothing
heavy, so that such a process starts quickly.
"""

from __future__ import annotations

import json
import mmap
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from thalweg.errors import UnsafeFileError

DEPTH = 32  # groups within groups
OBJECTS = 200_000  # groups and datasets
ATTRIBUTES = 256  # of one object
ATTRIBUTE_ENTRIES = 1_000_000
INFLATION = 1032  # bytes that one byte of deflate becomes at most; LZF reaches 264/3
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
COMPRESSORS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF}
TEXT = 64  # bytes of a Python string beside its characters
ROOM = 2 * 2**30  # address space of a rehearsal beside the arrays: libraries are mapped, not held
_BLOCK = 16 * 2**20  # bytes that are looked at together


@dataclass
class Inspection:
    """Running totals over one file.

    Attributes
    ----------
    path
        The file.
    limit
        Bytes that all its arrays together may take.
    longest_text
        Bytes of the largest heap, which bounds every text of free length.
    total, objects
        Bytes and objects so far.
    groups, datasets
        Addresses of the groups seen; of the datasets.
    """

    path: Path
    limit: int
    longest_text: int
    total: int = 0
    objects: int = 0
    groups: set[int] = field(default_factory=set)
    datasets: set[int] = field(default_factory=set)

    def refuse(self, where: str, what: str) -> UnsafeFileError:
        """The error for something at ``where`` in the file."""
        return UnsafeFileError(
            f"{self.path}: {where or '/'} {what}; AnnData writes no such thing, and nothing of the file is loaded. If "
            "you trust its source, read it with anndata.read_h5ad."
        )

    def add(self, where: str, size: int, detail: str) -> None:
        """Count ``size`` bytes."""
        self.total += size
        if self.total > self.limit:
            raise UnsafeFileError(
                f"{self.path}: with {where} ({detail}) the arrays of this file, which has {self.path.stat().st_size} "
                f"bytes, take {self.total} bytes or more, over max_bytes={self.limit}; nothing of it is loaded. If you "
                "trust its source, pass a larger max_bytes."
            )


def inspect(path: Path, limit: int) -> None:
    """Look at every object of a file.

    Parameters
    ----------
    path
        An HDF5 file.
    limit
        Bytes that its arrays may take in memory.

    Raises
    ------
    UnsafeFileError
        If the file leaves itself, runs in rings, holds types that AnnData does not write, or would take more memory.
    OSError, RuntimeError, KeyError, ValueError, TypeError
        From h5py, if it is damaged.
    """
    seen = Inspection(path, limit, _largest_heap(path))
    with h5py.File(path, "r") as file:
        references: list[tuple[str, int]] = []
        seen.groups.add(_address(file))
        pending: list[tuple[h5py.Group, int]] = [(file["/"], 0)]
        while pending:
            group, depth = pending.pop()
            _attributes(seen, group, references)
            for name in group:
                child = _child(seen, group, name)
                if isinstance(child, h5py.Group):
                    address = _address(child)
                    if address in seen.groups:
                        raise seen.refuse(child.name, "is a group that is linked twice, so that it may hold itself")
                    if depth + 1 > DEPTH:
                        raise seen.refuse(child.name, f"lies more than {DEPTH} groups deep")
                    seen.groups.add(address)
                    pending.append((child, depth + 1))
                else:
                    _dataset(seen, child)
                    _attributes(seen, child, references)
        for where, address in references:
            if address not in seen.datasets:
                raise seen.refuse(where, "refers to something outside the tree of the file")


def rehearse(path: Path, limit: int) -> None:
    """Inspect a file, then read all of it, a block at a time.

    Raises
    ------
    UnsafeFileError
        As `inspect`.
    OSError, RuntimeError, KeyError, ValueError, TypeError
        From h5py, if it is damaged.
    """
    inspect(path, limit)
    with h5py.File(path, "r") as file:
        dict(file.attrs)
        file.visititems(_read)


def _read(name: str, item: h5py.Group | h5py.Dataset) -> None:
    dict(item.attrs)
    if not isinstance(item, h5py.Dataset) or not item.size:
        return
    if not item.shape:
        item[()]
    elif item.chunks:
        for block in item.iter_chunks():
            item[block]
    else:
        rows = max(1, _BLOCK // max(1, item.id.get_type().get_size() * item.size // item.shape[0]))
        for start in range(0, item.shape[0], rows):
            item[start : start + rows]


def main() -> None:
    """The process of a rehearsal: arguments are a file and a limit, the answer is a line of JSON."""
    path, limit = Path(sys.argv[1]), int(sys.argv[2])
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        resource.setrlimit(resource.RLIMIT_AS, (limit + ROOM, limit + ROOM))
    answer: dict[str, str] = {}
    try:
        rehearse(path, limit)
    except UnsafeFileError as error:
        answer = {"unsafe": str(error)}
    except Exception as error:  # whatever h5py makes of a damaged file
        answer = {"damaged": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))


def _largest_heap(path: Path) -> int:
    """Bytes of the largest global heap collection; a false match in some array can only make it larger."""
    size = path.stat().st_size
    largest = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(b"GCOL")
        while at >= 0:
            claimed = int.from_bytes(data[at + 8 : at + 16], "little")
            if claimed <= size:  # a heap that ends beyond the file cannot be read
                largest = max(largest, claimed)
            at = data.find(b"GCOL", at + 4)
    return largest


def _address(item: h5py.Group | h5py.Dataset) -> int:
    address: int = h5py.h5o.get_info(item.id).addr
    return address


def _child(seen: Inspection, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    where = f"{group.name.rstrip('/')}/{name}"
    seen.objects += 1
    if seen.objects > OBJECTS:
        raise seen.refuse(where, f"is one of more than {OBJECTS} objects")
    if name in (".", ".."):
        raise seen.refuse(where, "has the name of a folder")
    kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
    if kind != h5py.h5l.TYPE_HARD:
        names = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "a link to another file"}
        raise seen.refuse(where, f"is {names.get(kind, 'a link of unknown kind')}")
    child = group[name]
    if not isinstance(child, h5py.Group | h5py.Dataset):
        raise seen.refuse(where, f"is a {type(child).__name__}")
    return child


def _dataset(seen: Inspection, data: h5py.Dataset) -> None:
    where = data.name
    seen.datasets.add(_address(data))
    settings = data.id.get_create_plist()
    if settings.get_external_count():
        raise seen.refuse(where, "keeps its values in another file")
    if settings.get_layout() == h5py.h5d.VIRTUAL:
        raise seen.refuse(where, "is a virtual dataset, whose values lie in other files")
    width = _width(seen, where, data.dtype)
    chunk = int(np.prod(data.chunks, dtype=object)) if data.chunks else 0
    entries = max(int(np.prod(data.shape or (), dtype=object)), chunk)
    seen.add(where, entries * width, f"{' x '.join(map(str, data.shape or ())) or 1} entries x {width} bytes")
    if _is_text(data.dtype):
        _text(seen, data)
    if settings.get_nfilters():
        _filters(seen, data, settings, chunk * data.id.get_type().get_size())


def _width(seen: Inspection, where: str, dtype: np.dtype) -> int:
    """Bytes of an entry in memory; text of free length without its characters."""
    if dtype.names is not None:  # records of early AnnData
        return sum(_width(seen, where, dtype[name]) for name in dtype.names)
    if dtype.subdtype is not None:
        return _width(seen, where, dtype.subdtype[0]) * int(np.prod(dtype.subdtype[1], dtype=object))
    if _is_text(dtype):
        return TEXT
    if dtype.kind in "biufcSU":
        return dtype.itemsize
    raise seen.refuse(where, f"has the type {dtype} ({dict(dtype.metadata or {}) or dtype.kind}), which is not plain")


def _is_text(dtype: np.dtype) -> bool:
    info = h5py.check_string_dtype(dtype)
    return info is not None and info.length is None


def _text(seen: Inspection, data: h5py.Dataset) -> None:
    """Count the characters, from the texts themselves if the longest one times their number is over the limit."""
    n = data.size or 0
    if seen.total + n * seen.longest_text <= seen.limit:
        return
    if data.ndim != 1:
        seen.add(data.name, n * seen.longest_text, f"{n} texts of up to {seen.longest_text} bytes")
        return
    # Blocks of which none takes much, whatever its texts.
    step = max(1, min(seen.limit - seen.total, _BLOCK) // max(seen.longest_text, 1))
    for start in range(0, n, step):
        size = sum(map(len, data[start : start + step]))
        seen.add(data.name, size, f"text up to entry {start + step}")


def _filters(seen: Inspection, data: h5py.Dataset, settings: h5py.h5p.PropDCID, declared: int) -> None:
    """Allow the filters that AnnData uses, once each, and see that no large chunk grows beyond its declared size."""
    codes = [settings.get_filter(k)[0] for k in range(settings.get_nfilters())]
    if unknown := set(codes) - FILTERS:
        raise seen.refuse(data.name, f"needs the HDF5 filters {sorted(unknown)}, whose growth is not known")
    compressors = [code for code in codes if code in COMPRESSORS]
    if len(compressors) > 1:
        raise seen.refuse(data.name, "is compressed twice")
    if not compressors:
        return
    large: list[tuple[tuple[int, ...], int]] = []

    def look(info: h5py.h5d.StoreInfo) -> None:
        if info.size * INFLATION > max(seen.limit - seen.total, declared):
            large.append((info.chunk_offset, info.size))

    data.id.chunk_iter(look)
    for offset, _ in large:
        stored = data.id.read_direct_chunk(offset)[1]
        if compressors == [h5py.h5z.FILTER_DEFLATE] and _inflated(stored, declared + 64) > declared + 64:
            raise seen.refuse(data.name, f"has a chunk at {offset} that decompresses to more than its {declared} bytes")


def _inflated(stored: bytes, limit: int) -> int:
    """Bytes that a deflate stream becomes, counted up to just over ``limit``."""
    stream = zlib.decompressobj()
    count, rest = 0, stored
    while rest and not stream.eof and count <= limit:
        count += len(stream.decompress(rest, 2**20))
        rest = stream.unconsumed_tail
    return count


def _attributes(seen: Inspection, item: h5py.Group | h5py.Dataset, references: list[tuple[str, int]]) -> None:
    """Look at the attributes; references, which name the categories of a column in AnnData 0.7, are noted."""
    if len(item.attrs) > ATTRIBUTES:
        raise seen.refuse(item.name, f"has {len(item.attrs)} attributes")
    for name in item.attrs:
        where = f"{item.name} attribute {name!r}"
        attribute = item.attrs.get_id(name)
        entries = int(np.prod(attribute.shape or (), dtype=object))
        if entries > ATTRIBUTE_ENTRIES:
            raise seen.refuse(where, f"has {entries} entries")
        if name == "categories" and h5py.check_ref_dtype(attribute.dtype) is h5py.Reference and entries == 1:
            references.append((where, _address(item.file[item.attrs[name]])))
            continue
        width = _width(seen, where, attribute.dtype)
        seen.add(where, entries * width, f"{entries} entries x {width} bytes")
        if _is_text(attribute.dtype):
            most = entries * seen.longest_text
            if seen.total + most > seen.limit:
                seen.add(where, most, f"{entries} texts of up to {seen.longest_text} bytes")
            seen.add(where, sum(map(len, np.ravel(item.attrs[name]))), "its text")
