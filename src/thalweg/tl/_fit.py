"""`tl.fit`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thalweg._device import resolve_device
from thalweg._random import Rng, resolve_rng
from thalweg._settings import logger
from thalweg.data.cells import Cells, Floats, read_course
from thalweg.data.entries import plan_relaxation
from thalweg.data.recipe import Baseline, Columns, Recipe
from thalweg.data.sizes import Sizes, read_sizes
from thalweg.data.times import TimeMap
from thalweg.data.writing import writable
from thalweg.errors import InputError
from thalweg.flows.choice import AUTO, CANDIDATES, choose
from thalweg.flows.clock import course_axis
from thalweg.flows.config import FitConfig
from thalweg.flows.ensemble import join
from thalweg.flows.evaluate import Trial, candidates
from thalweg.flows.fitting import Fitted, train_flows
from thalweg.flows.methods import Method, find_method, with_dynamics
from thalweg.flows.moves import warn_if_still
from thalweg.flows.reconstruction import reconstruct
from thalweg.flows.replicates import warn_if_apart
from thalweg.flows.resume import identify, open_runs
from thalweg.flows.store import pack
from thalweg.flows.time_axis import Spacing

if TYPE_CHECKING:
    from anndata import AnnData


def fit(
    adata: AnnData,
    time_key: str,
    *,
    method: str | Method = "usb",
    use_rep: str | None = None,
    n_dims: int | None = None,
    key_added: str = "thalweg",
    time_map: TimeMap | None = None,
    spacing: Spacing = "clock",
    condition_key: Columns = None,
    baseline: Baseline = None,
    couple_within: Columns = None,
    weight_key: str | None = None,
    growth_key: str | None = None,
    death_key: str | None = None,
    population_size: Sizes | None = None,
    config: FitConfig | None = None,
    n_models: int = 1,
    resample: bool = False,
    replicate_key: str | None = None,
    check: bool = True,
    rng: Rng = None,
    random_state: Rng = None,
    device: str = "auto",
    checkpoint_dir: str | PathLike[str] | None = None,
    checkpoint_every: int = 250,
    resume: bool = False,
    copy: bool = False,
) -> AnnData | None:
    """Learn how a population moves between the time points of a time course.

    Neighbouring time points are coupled, a path joins the cells of a pair, and a neural velocity field is regressed on
    the velocities of the paths (flow matching).

    Parameters
    ----------
    adata
        Cells of two or more time points.
    time_key
        Column of ``obs`` with the time of each cell: numbers, or text and categories that read as numbers.
    method
        ``"otcfm"``: pairs of the exact optimal transport plan (Tong et al. 2024). ``"uotcfm"``: unbalanced transport
        with growth, so that cells carry weights (Chizat et al. 2018). ``"usb"``: its predictions, and beside them the
        dynamics of single cells, a Schrödinger bridge with births and deaths whose diffusion is learned from the cells,
        with their drift, noise and fates (Léonard 2014; Tong et al. 2024). ``"sf2m"``: Schrödinger bridge, pairs of the
        entropic plan and Brownian bridges between them, with a score, so that it also runs as an SDE (Tong et al. 2024,
        [SF]2M); ``"sbcfm"``: the same without the score. ``"icfm"``: independent pairs. ``"vpcfm"``: independent pairs
        on the trigonometric interpolant (Albergo & Vanden-Eijnden 2023). ``"am"``, ``"eam"``, ``"uam"``: a potential,
        by action matching, its entropic and its unbalanced form (Neklyudov et al. 2023). ``"fm"``: a flow from Gaussian
        noise to the population of each time (Lipman et al. 2023). Or a `Method` of your own: a coupling and a path.
        ``"auto"`` chooses among ``"usb"``, ``"otcfm"`` and ``"fm"`` by the inner times, where there are three or more
        (`choose`).
    use_rep
        Key of ``obsm``; by default the PCA that exists. ``"X"`` uses ``adata.X``.
    n_dims
        Number of leading columns of the representation; all by default.
    key_added
        Key of ``uns`` to write.
    time_map
        Number for each label of ``obs[time_key]``, for labels such as ``"day 3"``.
    spacing
        What time the prediction runs on. ``"clock"``: the cells' own, in which the observed times are as far apart as
        their populations (`thalweg.flows.clock`); the dynamics keep the calendar. ``"real"`` keeps the spacing of the
        times; ``"index"`` treats them as equally spaced, as several papers do; a mapping gives the model time of each
        time.
    condition_key
        Column of ``obs``, or several: ``["genotype", "treatment"]``. The field is conditioned on it, and cells are
        coupled within a condition only. A condition that was observed at some times is carried where it was trained.
    baseline
        Label in ``condition_key`` of cells that belong to every condition until it has cells of its own, such as an
        untreated day 0: ``baseline="untreated"``, or ``float("nan")`` for cells without a label. Of several columns, a
        cell joins the conditions that agree in the others. Where the label also has later times, as ``"control"`` with
        a knock-out from day 3 on, it is a condition itself.
    couple_within
        Further columns of ``obs`` that plans stay within, on which the field is not conditioned: donors who were
        followed over time, say. By default the conditions are all; replicates are measured anew at each time, and
        plans across them are right.
    weight_key
        Column of ``obs`` with a positive weight for each cell: how much of its population it stands for.
    growth_key
        Column of ``obs`` with a growth rate for each cell, as of `thalweg.pp.growth`. Until the next time a cell has
        ``exp(rate dt)`` descendants, and plans give it as many partners (Schiebinger et al. 2019); predicted cells
        carry the weight. For ``"usb"``, ``"uotcfm"`` and ``"uam"`` the rates are a reference, from which what the cells
        show may depart at a price (``FitConfig.growth_strength``).
    death_key
        Column of ``obs`` with a death rate for each cell; ``growth_key`` is then the birth rate. `fate` can tell which
        cells die.
    population_size
        How many cells each population has, counted or estimated, in any unit: ``{time: size}``, or ``{condition: {time:
        size}}`` with a ``condition_key``, or a key of ``uns`` that holds such a dict. Populations then grow as the
        sizes say. Without it, totals are relative: they follow the given rates, or are 1 at every time.
    config
        Training, network, noise and size of the plans: ``config=tw.tl.FitConfig(max_steps=500)``; `FitConfig`.
    n_models
        Models to train, of the same plans and other seeds. Every verb runs the mean of their fields; velocities,
        predictions and simulated fates say how far they differ.
    resample
        Give each of the models a bootstrap sample of the cells of each time and plans of its own. How far they differ
        is then the error of the cells, too, and not of the training alone. Needs ``n_models`` of two or more; five
        say more.
    replicate_key
        Column of ``obs`` with the replicate of each cell. ``resample`` then draws whole replicates, and ``check`` warns
        where replicates of one time are further apart than neighbouring times.
    check
        Warn if neighbouring populations do not differ (`thalweg.flows.moves`). After the fit, roll the first population
        out through all times, store how well the others come back (`thalweg.pl.reconstruction`) and warn if they do
        not. It takes a second or two; `assess` takes minutes and says more.
    rng, random_state
        Seed, numpy Generator or None; two names of one argument. The same seed gives the same bits on one machine's
        CPU; for entropic and unbalanced plans with the same number of threads (``torch.get_num_threads()``).
    device
        ``"auto"`` (CUDA when present), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    checkpoint_dir
        Folder in which training saves itself, with a folder in it for each of several models; none by default. It may
        be killed at any moment: the newest checkpoint is whole, and damage to it is found. The last two are kept;
        `thalweg.training.load_weights` reads one.
    checkpoint_every
        Steps between two checkpoints; one is also written at the end.
    resume
        Go on from the newest checkpoint in ``checkpoint_dir``; the result has the bits of a fit that was never stopped.
        Without a checkpoint there, start anew. ``rng=None`` takes the seed the fit was started with. A finished fit
        trains no further.
    copy
        Return a copy instead of writing into ``adata``.

    Returns
    -------
    None, or the copy. Sets the following fields:

    ``adata.uns[key_added]`` : dict
        The model: ``params``, ``recipe`` (the columns that cells are read from), ``config``, ``time``, ``center``,
        ``scale``, ``diffusion`` (of each component), ``seen`` (the cells in numbers), ``weights`` (safetensors bytes of
        each model), ``history`` and ``intervals`` (DataFrames), ``best_step``, ``seconds``, ``population_sizes``,
        ``turnover`` (births and deaths of the states of the cells) and ``reconstruction``, a DataFrame with the W1 of
        each population rolled out, its floor and its mass. It survives ``write_h5ad`` and ``write_zarr``.

    Raises
    ------
    MissingKeyError
        If a key does not exist; lists those that do.
    InputError
        If the values behind a key or an argument cannot be used; before any training, nothing is written. Likewise if
        ``checkpoint_dir`` holds checkpoints and ``resume`` is False, or those of another fit, which names what differs.
    CheckpointError
        If no checkpoint to go on from is valid, or it was written by a newer version.
    NonFiniteLossError
        If training diverges; nothing is written to ``adata``. The last finite weights are in the error's ``weights``,
        and in ``checkpoint_dir`` if given.

    Examples
    --------
    >>> import thalweg as tw
    >>> adata = tw.datasets.simulated(rng=0)
    >>> tw.tl.fit(adata, "time", method="otcfm", rng=0)
    >>> day = tw.tl.interpolate(adata, 1.5)
    """
    generator, config = resolve_rng(rng, random_state), FitConfig() if config is None else config
    recipe = Recipe(
        time_key, use_rep, n_dims, time_map, condition_key, weight_key, growth_key, (), death_key, replicate_key,
        baseline, couple_within,
    )  # fmt: skip
    cells = read_course(adata, recipe)
    sizes = read_sizes(adata, population_size, cells, time_map)
    if check:
        _remark_on(cells)
    axis, place = course_axis(cells, spacing), resolve_device(device)
    _check_options(n_models, resample, resume and checkpoint_dir is None)
    if method == AUTO:
        relaxation = None if growth_key is None else plan_relaxation(adata, growth_key)
        method = _choose(cells, Trial(replace(config, score=None), spacing, place, False), generator, sizes, relaxation)
    chosen = _resolved(method, config)
    _check_sizes(sizes is not None, chosen)
    runs = open_runs(
        checkpoint_dir, identify(cells, chosen, axis, place, sizes, resample), config,
        [generator, *generator.spawn(int(n_models) - 1)], resume=resume, every=checkpoint_every,
        fresh=rng is None and random_state is None, dynamics=chosen.dynamics != "none",
    )  # fmt: skip
    fitted = train_flows(
        cells, chosen, axis, config, runs, device=place, sizes=sizes, description=chosen.name, resample=resample
    )
    out = writable(adata, copy)
    out.uns[key_added] = pack(fitted, cells, adata.obs_names.to_numpy(), chosen, recipe, config, sizes, resample)
    logger.info("added uns[%r]: the fitted flow", key_added)
    if check and chosen.field != "noise":
        out.uns[key_added]["reconstruction"] = _returned(fitted, cells, sizes)
    return out if copy else None


def _returned(fitted: Sequence[Fitted], cells: Cells, sizes: Floats | None) -> pd.DataFrame:
    """How well the populations come back."""
    process = join([one.flow for one in fitted]).process
    return reconstruct(process, fitted[0].alive(cells), sizes)


def _remark_on(cells: Cells) -> None:
    """Say what speaks against learning from these cells at all."""
    warn_if_still(cells)
    warn_if_apart(cells)
    if len(cells.times) == 2:
        logger.info("two times: none can be left out, so nothing that this fit predicts can be validated")


def _resolved(method: str | Method, config: FitConfig) -> Method:
    """The method, with dynamics beside it where the configuration asks for a score."""
    chosen = find_method(method)
    return with_dynamics(chosen) if config.score is not None and not chosen.bridged else chosen


def _choose(
    cells: Cells, trial: Trial, rng: np.random.Generator, sizes: Floats | None, relaxation: float | None
) -> str:
    """The method that the inner times choose; of those with births and deaths where sizes were counted."""
    names = [name for name in CANDIDATES if sizes is None or find_method(name).turns_over]
    found = choose(cells, candidates(names), trial, [int(rng.integers(2**31))], relaxation)
    logger.info("%s", found.reason)
    return found.method


def _check_sizes(given: bool, method: Method) -> None:
    if given and not method.turns_over:
        raise InputError(
            f"population_size needs a method with births and deaths ('usb', 'uotcfm', 'uam'); method={method.name!r} "
            "keeps every population at its size. For rates of single cells give growth_key."
        )


def _check_options(n_models: int, resample: bool, nowhere: bool) -> None:
    """Refuse what needs no look at the cells; ``nowhere`` to resume from."""
    if nowhere:
        raise InputError("resume=True needs checkpoint_dir, the folder to go on from.")
    if resample and n_models == 1:
        raise InputError("resample=True needs two models at least, whose differences are the error; give n_models=5.")
    if isinstance(n_models, bool) or not isinstance(n_models, int | np.integer) or n_models < 1:
        raise InputError(f"n_models must be a positive integer, found {n_models!r}.")
