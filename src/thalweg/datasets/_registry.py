"""Where the files of the real data sets come from, and the check that they are the files meant.

A file is looked for in three places, and the first that has it is used:

1. the folder named by the environment variable ``THALWEG_DATA_DIR``, in the layout of the names of `FILES`;
2. the user's cache, ``pooch.os_cache("thalweg")``, in the same layout;
3. its public source, ``BASE_URL/<repository>/<commit>/<path>``, from which it is downloaded into the cache.

Its sha256 is compared with the table each time, wherever it lies. A file that differs is refused, and left as it is:
nothing is ever written over a user's file. Some entries were converted from their source (which is named) and have no
download: they must lie in one of the two folders.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from thalweg.errors import InputError

BASE_URL = "https://raw.githubusercontent.com"
DATA_DIR = "THALWEG_DATA_DIR"
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class Source:
    """A public repository at one commit, and its licence."""

    repository: str
    commit: str
    licence: str


@dataclass(frozen=True)
class File:
    """A file by its sha256; ``path`` in the repository, or None where the file was converted from what lies there."""

    source: Source
    path: str | None
    sha256: str

    @property
    def url(self) -> str | None:
        """The address of the file's bytes, if there is one."""
        if self.path is None:
            return None
        return "/".join([BASE_URL, self.source.repository, self.source.commit, self.path])


_LIGHTSB = Source("ngushchin/LightSB", "70aa4ee5826ccefbbba644bcf831c32a994ceb76", "MIT")
_COSPAR = Source("AllonKleinLab/cospar", "ca54cad8a9db9a72152ba8a8b6d67d57eace4acb", "MIT")
_MOSCOT = Source("theislab/moscot", "0741c82411be30b3df2ec1b6ffe884ad1b9dcc2d", "BSD-3-Clause")
_MNIST = Source("rasbt/mnist-pngs", "d26bd33bf1e454dd15bd4fe8b8ba64c76308f91c", "MIT")
_CONVNETJS = Source("karpathy/convnetjs", "39afa8cd5e4cfb5771dc8a1f51bc56aa080f0b51", "MIT")

_REFERENCE_FITTING = Source("zsteve/referencefitting", "bd555dfb0d22feb9c733191469ed1d2757f17676", "MIT")

_CITE_SHA256 = {
    "full_cite_pcas_100_day_2.npy": "85000b25eb6b7ae5c7daf7ad17e995741e8a76f25771d5716ccb539d3d22ad55",
    "full_cite_pcas_100_day_3.npy": "5a4fdcbb076b2f25b2e823b87d92deccacf29d702f3ac32835490e7db10b59c8",
    "full_cite_pcas_100_day_4.npy": "04cd3ba804006ee72413aab33c90b6d977eb3a4e4a38127445a46625436fe524",
    "full_cite_pcas_100_day_7.npy": "4a422acef3226958035c72e87ca7d1644d86f4efbb29be2c0bea67fc1e93b24e",
    "full_cite_pcas_50_day_2.npy": "ba7cc587e6df22382099e8592939e188b1fe32681a71640473058719f56f1bf4",
    "full_cite_pcas_50_day_3.npy": "3b427bff70dfae37e3c4793d3ae9b3493c96a88cb507518e41387b7eeca62f94",
    "full_cite_pcas_50_day_4.npy": "db70a163f9ae8ec7ae26ea41a330f0de814facc97d1928f14e00cc3fa48a741b",
    "full_cite_pcas_50_day_7.npy": "b8409dad032f03afba90ffd7762e49a6413b0b2ef8bfc3304a46ea143536bc07",
}

_BOOLODE_SHA256 = {
    "dyn-TF/ExpressionData.csv": "c61378c9198e971b2ca70473f5eb5c8a4c3b86518f4ea4dd36bcf8f6755efdb1",
    "dyn-TF/PseudoTime.csv": "cc1b1bc524702f57ab8e0b1ddda41abd6d84b2afbc3ec9304f390c09cebb1e36",
    "dyn-TF/VelocityData.csv": "05d6adadf2c7a9794cda4f603a134d52632672b6dfdbd30892b0cdd0b60d2faf",
    "dyn-TF_ko_g2/ExpressionData.csv": "7da21bb07ac4a2724fcf1734b5785b88b94d1e55b057133cdb989a944108431c",
    "dyn-TF_ko_g2/PseudoTime.csv": "4ef2b5b2a216b8b2c3c0fcf62739ffd29fed736c253f5a3dea6be19913ffdf53",
    "dyn-TF_ko_g2/VelocityData.csv": "424f1b0455e031a756f35f301f17b3349f1e6fc46ad220b6582badfa2fc63176",
    "dyn-TF_ko_g3/ExpressionData.csv": "a54ae26063346fb50cf6fe78c2486aee290db875cd3982275f9ec82069125a60",
    "dyn-TF_ko_g3/PseudoTime.csv": "1501c4da84d1bad5f28d28d99dd7e9d2a3689f02d4c00a73a41d473f6629300f",
    "dyn-TF_ko_g3/VelocityData.csv": "a48eb0d766ded96f2c3bc014edcba50bf0bd399d6d31ed57ccea2220904e0a2a",
    "dyn-TF_ko_g4/ExpressionData.csv": "acdc2941f42c4e62f3c199d955445b2996b200d7ad8ea640049fa0edd55fc09b",
    "dyn-TF_ko_g4/PseudoTime.csv": "74ea747d1e0a757afc6c43aba3c0a29dc8b30bdc72412521232addb8eb12d978",
    "dyn-TF_ko_g4/VelocityData.csv": "477bbf73231abf917f84aafb7456e4c0e653aa0b56671bf49ad3b36d09f649fe",
    "dyn-TF_ko_g5/ExpressionData.csv": "39177733b4768a7fd0697c0926692482404f6620c39a9e14580660851912b19d",
    "dyn-TF_ko_g5/PseudoTime.csv": "15299c0e4f9a150fb2ab8c3132b21617393b4cb3c1e296e4df5c1f1d7a4074fe",
    "dyn-TF_ko_g5/VelocityData.csv": "fa807c6501b5a2f27b0b227b6a83a0576c276f3d445c60c3c54d43dcd2225dfb",
    "dyn-TF_ko_g6/ExpressionData.csv": "03e1bb8d633c44d86151100a042fe1ea1785373fc9ca51e8f8f8fa3128dca36d",
    "dyn-TF_ko_g6/PseudoTime.csv": "04668068da2b85f122eb44e04fe27935d4ed262faf7643f8379f4e63274ef2af",
    "dyn-TF_ko_g6/VelocityData.csv": "8804b9bb83c38b501351f6e1bfa380359ffd2e3f1d7a7f1ba719185ac72e0b4b",
    "dyn-TF_ko_g7/ExpressionData.csv": "da453bca7881beb9c1177edf394c1045fdc06b955fa5a7594b2c67ae9ee8bfef",
    "dyn-TF_ko_g7/PseudoTime.csv": "fc2d7beda32c8df7a8b144348bae3a341e5f0b277e049ee3b88c9b2238987135",
    "dyn-TF_ko_g7/VelocityData.csv": "9edb5942f1ada0c047776b5e41fe540b7744c1233785438684b58b5116eb7976",
    "dyn-TF_ko_g8/ExpressionData.csv": "4d82d9bd61f6e4f5855ccd6148b6e26ae8f9d935cf00c61b4735eef9b88a6d28",
    "dyn-TF_ko_g8/PseudoTime.csv": "eeae39d5ab69987b3a39e4d490360313231ce4e9ceffdc28dbac94ca3381e603",
    "dyn-TF_ko_g8/VelocityData.csv": "703f5c245e19b1845ef909cce05cfe3f2b3e51c24c787b3d8e7b7ff9565a9aa8",
}

FILES: dict[str, File] = {
    **{f"cite/{name}": File(_LIGHTSB, f"data/{name}", sha256) for name, sha256 in _CITE_SHA256.items()},
    "larry_subset/larry_781.h5ad": File(
        _COSPAR,
        "tests/data/test_adata_preprocessed.h5ad",
        "3c9a5d728f402ff2b87cfecb3cd6639a7fa342fe3a7d44ad57ac526a5ef674af",
    ),
    "mef_reprogramming/mef_reprogramming_1000.h5ad": File(
        _MOSCOT,
        "tests/data/moscot_temporal_tests.h5ad",
        "a35e7a99a243eee02154016f02f3fda3ad7ffad7e44fb00e3f814f1a36afbedf",
    ),
    **{
        f"boolode_tf/{name}": File(_REFERENCE_FITTING, f"data/simulation/Synthetic/{name}", sha256)
        for name, sha256 in _BOOLODE_SHA256.items()
    },
    "mnist/mnist_train.npz": File(_MNIST, None, "11bf48d67d8e90b9d940549ce9565b4921ad2ec150e4491e0c670aeb165169a9"),
    "mnist/mnist_test.npz": File(_MNIST, None, "3ba302235efdc3e7e4e84db9ce6a6d6cbc9dd1162d4e79dd0b6a606afc745423"),
    "cifar10_4k/cifar10_lossless_4k.npz": File(
        _CONVNETJS, None, "bb096b849d67c43dcd4c6152372ed4ec9c6618898de4cbc4aa411c468df1f24a"
    ),
}


def fetch(name: str) -> Path:
    """Return the path of a data file, after checking its sha256; download it when no local folder has it.

    Parameters
    ----------
    name
        Name in the table, such as ``"cite/full_cite_pcas_50_day_2.npy"``. The three image files ``"mnist/..."`` and
        ``"cifar10_4k/..."`` hold arrays converted from their source and cannot be downloaded.

    Returns
    -------
    Path
        The file in ``THALWEG_DATA_DIR`` or in the user's cache.

    Raises
    ------
    InputError
        The name is not in the table; ``THALWEG_DATA_DIR`` is no folder; a file found or downloaded is not the one in
        the table; or no folder has it and it cannot be downloaded. The message says what was tried.
    """
    import pooch

    if name not in FILES:
        raise InputError(f"no data file {name!r}; the files are {sorted(FILES)}")
    cache = Path(pooch.os_cache("thalweg"))
    for folder in [*_data_dir(), cache]:
        if (folder / name).is_file():
            return _checked(folder / name, FILES[name].sha256)
    return _download(name, cache)


def _data_dir() -> list[Path]:
    """Return the folder named by the environment, if any."""
    value = os.environ.get(DATA_DIR)
    if not value:
        return []
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f"{DATA_DIR}={value!r} is not a folder: correct it or unset it")
    return [folder]


def _checked(path: Path, expected: str) -> Path:
    import pooch

    found = pooch.file_hash(str(path), alg="sha256")
    if found != expected:
        raise InputError(
            f"{path} is not the file expected: sha256 expected {expected}, found {found}. "
            "It was left as it is; delete or move it and call again to get a fresh copy"
        )
    return path


def _download(name: str, cache: Path) -> Path:
    import pooch

    file = FILES[name]
    tried = f"{name} is neither in {DATA_DIR} ({os.environ.get(DATA_DIR) or 'not set'}) nor in the cache {cache}"
    fix = f"set {DATA_DIR} to a folder that holds {name}"
    if file.url is None:
        raise InputError(f"{tried}; converted from {file.source.repository}, it has no download: {fix}")
    try:
        path = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=name,
            path=cache,
            downloader=pooch.HTTPDownloader(timeout=TIMEOUT),
        )
    except OSError as error:  # every error of the connection, and of writing to the cache
        raise InputError(f"{tried}, and downloading {file.url} failed ({error}): connect, or {fix}") from error
    except ValueError as error:  # pooch deletes what it downloaded
        raise InputError(f"{file.url} does not hold the file expected; nothing was kept: {error} Else {fix}") from error
    return Path(path)
