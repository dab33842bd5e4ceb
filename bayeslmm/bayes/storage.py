"""Save and load a posterior: one zip file of JSON, Parquet and netCDF. Loading executes nothing."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.bayes.posterior import Posterior, Run
from bayeslmm.bayes.priors import Prior, PriorEntry, Priors
from bayeslmm.errors import DataError
from bayeslmm.formula.structured import neighbours

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

FORMAT = "bayeslmm posterior"
VERSION = 1
PARTS = ("model.json", "data.parquet", "rows.npz", "draws.nc")


def save_posterior(post: Posterior, path: str | os.PathLike[str]) -> Path:
    """Write a posterior to a file; an earlier file is replaced only once the new one is complete.

    Parameters
    ----------
    post : Posterior
        The posterior.
    path : str or path
        Where.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no folder to write it in.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {os.fspath(target.parent)!r} to save {target.name!r} in.\n"
            f"  Create it first: os.makedirs({os.fspath(target.parent)!r}), or save to another folder."
        )
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_parts(post, Path(folder))
            with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for part in PARTS:
                    archive.write(Path(folder) / part, part)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


def write_parts(post: Posterior, folder: Path) -> None:
    """Write the parts of the archive into a folder.

    Parameters
    ----------
    post : Posterior
        The posterior.
    folder : Path
        Where.
    """
    design = post.design
    if any(entry.prior.dist is not None for entry in post.priors):
        raise DataError("a prior given as a function cannot be saved: a file must not hold code.")
    record = {
        "format": FORMAT,
        "version": VERSION,
        "formula": design.formula.text,
        "auxiliary": {name: part.formula.text.partition("~")[2].strip() for name, part in design.auxiliary.items()},
        "family": {"name": post.response.name, "link": post.response.link},
        "run": asdict(post.run),
        "centred": post.priors.centred,
        "priors": [
            {
                "name": e.name,
                "kind": e.kind,
                "term": e.term,
                "note": e.note,
                "parameter": e.parameter,
                "prior": e.prior.name,
                "args": plain(e.prior.args),
            }
            for e in post.priors
        ],
        "n_total": int(design.n_total),
        "missing": {str(name): int(count) for name, count in design.missing.items()},
        "coef_names": list(design.coef_names),
        "weights": design.encoder.weights,
        "offset": design.encoder.offset,
        "offset_was_array": design.encoder.offset_was_array,
        "adjacency": None if design.encoder.adjacency is None else neighbours(design.encoder.adjacency),
        "residuals": None if design.residuals is None else asdict(design.residuals.spec),
    }
    (folder / "model.json").write_text(json.dumps(record), encoding="utf-8")
    design.data.to_parquet(folder / "data.parquet")
    arrays = {
        name: getattr(design, name)
        for name in ("rows", "weights", "trials", "offset", "survey_weights")
        if getattr(design, name) is not None
    }
    np.savez(folder / "rows.npz", **arrays)
    post.data.to_netcdf(folder / "draws.nc", engine="netcdf4")


def plain(args: Any) -> dict[str, Any]:
    """Return the parameters of a prior as JSON takes them.

    Parameters
    ----------
    args : mapping
        Parameters.

    Returns
    -------
    dict
        Numbers and lists.
    """
    return {key: np.asarray(value).tolist() for key, value in args.items()}


def load_posterior(path: str | os.PathLike[str]) -> Posterior:
    """Read a posterior that `save_posterior` wrote.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    Posterior
        The same draws, summaries and predictions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If the file is not ours, is damaged, or comes from a later version.
    """
    if not Path(path).exists():
        raise FileNotFoundError(
            f"there is no file {os.fspath(path)!r} to load a posterior from.\n"
            f"  Paths are relative to {os.getcwd()!r}; post.save(path) returns the path it wrote to."
        )
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            if not set(PARTS) <= set(archive.namelist()):
                raise DataError(f"{os.fspath(path)!r} is a zip file, but not one that save() wrote.")
            for part in PARTS:
                archive.extract(part, folder)
            return read_parts(Path(folder), os.fspath(path))
    except (zipfile.BadZipFile, EOFError, json.JSONDecodeError, KeyError) as error:
        raise DataError(
            f"{os.fspath(path)!r} is not a posterior that save() wrote, or is damaged ({type(error).__name__})."
        ) from None


def read_parts(folder: Path, name: str) -> Posterior:
    """Return the posterior whose parts stand in a folder.

    Parameters
    ----------
    folder : Path
        Where.
    name : str
        Name of the file, for messages.

    Returns
    -------
    Posterior
        The posterior.
    """
    from bayeslmm.families import as_family
    from bayeslmm.formula.auxiliary import attach_auxiliary
    from bayeslmm.formula.design import build_design
    from bayeslmm.formula.residuals import Residuals

    record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise DataError(f"{name!r} is not a posterior that save() wrote.")
    if record["version"] > VERSION:
        raise DataError(
            f"{name!r} was written by a later version of bayeslmm; update it: python -m pip install -U bayeslmm"
        )
    family = as_family(record["family"]["name"], record["family"]["link"])
    with np.load(folder / "rows.npz", allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    frame = pd.read_parquet(folder / "data.parquet")
    spec = record.get("residuals")
    design = build_design(
        record["formula"],
        frame,
        weights=record.get("weights") or arrays.get("weights", _trials_as_weights(record["formula"], arrays)),
        offset=record.get("offset"),
        family=family.name,
        adjacency=record.get("adjacency"),
        residuals=None if spec is None else Residuals(**spec),
    )
    design = attach_auxiliary(design, frame, record.get("auxiliary", {}))
    if list(design.coef_names) != record["coef_names"]:
        raise DataError(f"{name!r} was written by a version that codes its columns otherwise; fit the model again.")
    design = replace(
        design,
        rows=arrays["rows"],
        offset=arrays.get("offset"),
        survey_weights=arrays.get("survey_weights"),
        encoder=replace(design.encoder, offset_was_array=record.get("offset_was_array", False)),
        n_total=record["n_total"],
        missing=record["missing"],
    )
    run = Run(**{**record["run"], "notes": tuple(record["run"]["notes"])})
    entries = tuple(
        PriorEntry(e["name"], e["kind"], Prior(e["prior"], **e["args"]), e["note"], e["term"], e.get("parameter", ""))
        for e in record["priors"]
    )
    return Posterior(design, family, Priors(entries, record["centred"]), read_tree(folder / "draws.nc"), run, None)


def _trials_as_weights(formula: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """Return trials that were given as an array of weights; none where the response names them."""
    from bayeslmm.formula.parse import parse_formula
    from bayeslmm.formula.syntax import Call, parse_syntax

    response = parse_syntax(parse_formula(formula).response)
    named = isinstance(response, Call) and response.function in ("cbind", "prop")
    return None if named else arrays.get("trials")


def read_tree(path: Path) -> xr.DataTree:
    """Return a DataTree read into memory.

    Parameters
    ----------
    path : Path
        A netCDF file.

    Returns
    -------
    DataTree
        Its groups.
    """
    import xarray as xr

    with xr.open_datatree(path, engine="netcdf4") as tree:
        return tree.load().copy(deep=True)
