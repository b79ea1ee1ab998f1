"""The catalogue finds its files by itself."""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws import catalogue
from jaxlaws.cli import main

TOY = '''
from jaxlaws.law import Law, Scalar, Source, record, var
from jaxlaws.numerics import power


@record
class Inputs:
    """Inputs of the law."""

    tokens: Scalar = var("training tokens", unit="tokens", aliases=("D",))


@record
class Coefs:
    """Coefficients of the law."""

    E: Scalar = var("irreducible loss", unit="nat/token")
    beta: Scalar = var("exponent of tokens")


@record
class Outputs:
    """Outputs of the law."""

    loss: Scalar = var("loss", unit="nat/token")


def loss(c: Coefs, x: Inputs) -> Scalar:
    """The loss of one configuration."""
    return c.E + power(x.tokens, -c.beta)


LAW = Law(
    title="a toy",
    fn=loss,
    inputs=Inputs,
    coefs=Coefs,
    outputs=Outputs,
    groups={"mine": Coefs(E=1.5, beta=0.5)},
    formula="E + tokens**-beta",
    source=Source(reference="nobody"),
)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A law in a file of its own, in a folder that is part of the catalogue."""
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(catalogue, "__path__", [*catalogue.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield "toy"
    sys.modules.pop("jaxlaws.catalogue.toy", None)


def test_one_file_makes_a_law(toy, capsys, tmp_path):
    assert toy in jl.laws
    law = jl.laws[toy]
    assert law is jl.laws[toy]
    np.testing.assert_allclose(law("mine", tokens=np.array([4.0, 100.0])), [2.0, 1.6])
    np.testing.assert_allclose(jl.gradient(law, "mine", D=np.array([4.0])).tokens, [-0.0625])
    assert jl.predict_table(law, {"D": [4.0]})["loss"] == [2.0]
    assert jl.sldbench.law(toy)([{"D": 4.0}], "mine") == [{"loss": 2.0}]
    with pytest.raises(KeyError, match="other"):
        jl.sldbench.law(toy)([{"D": 4.0}], "other")
    assert main(["list", "--json"]) == 0
    assert toy in [entry["name"] for entry in json.loads(capsys.readouterr().out)]
    assert main(["show", toy]) == 0
    assert "E + tokens**-beta" in capsys.readouterr().out
    assert main(["predict", toy, "D=4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == 2.0
    assert main(["predict", toy, "tokens=0"]) == 2
    assert "column 'tokens' must be positive: row 1" in capsys.readouterr().err
    assert main(["example", toy]) == 2
    assert "the range that toy was fitted on is not known for tokens" in capsys.readouterr().err


@pytest.mark.parametrize("name", jl.laws)
def test_every_law_says_where_its_numbers_are_from(name):
    law = jl.laws[name]
    for source in (law.source, *law.sources.values()):
        assert source.evidence
        assert "arXiv:" in source.reference
    assert law.groups or law.source.evidence == "the form alone"


@pytest.fixture
def points(tmp_path, monkeypatch):
    """Entry points of a package: a law, a module that is not there, one that fails, and a name that is taken."""
    (tmp_path / "extra_laws").mkdir()
    (tmp_path / "extra_laws" / "__init__.py").touch()
    (tmp_path / "extra_laws" / "extra.py").write_text(TOY)
    (tmp_path / "extra_laws" / "failing.py").write_text("1 / 0\n")
    about = tmp_path / "extra_laws-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: extra_laws\nVersion: 1\n")
    modules = {"extra": "extra", "absent": "absent", "failing": "failing", "moe": "extra"}
    lines = [f"{name} = extra_laws.{module}:LAW" for name, module in modules.items()]
    (about / "entry_points.txt").write_text("\n".join(["[jaxlaws.laws]", *lines]))
    monkeypatch.syspath_prepend(tmp_path)
    yield [
        "the entry point 'absent' of the package extra_laws cannot be loaded: "
        "ModuleNotFoundError: No module named 'extra_laws.absent'",
        "the entry point 'failing' of the package extra_laws cannot be loaded: ZeroDivisionError: division by zero",
        "the entry point 'moe' of the package extra_laws is not used: there is another law of that name",
    ]
    for name in [name for name in sys.modules if name.partition(".")[0] == "extra_laws"]:
        del sys.modules[name]


def test_entry_points_that_cannot_be_used_are_left_out_with_a_warning(points):
    with pytest.warns(UserWarning, match="the entry point") as caught:
        found = dict(jl.laws)
    assert [str(each.message) for each in caught] == points
    assert found["extra"].fn.__module__ == "extra_laws.extra"
    assert found["moe"].fn.__module__ == "jaxlaws.catalogue.moe"
    assert not {"absent", "failing"} & set(found)
    for line, name in zip(points, ("absent", "failing"), strict=False):
        with pytest.raises(ValueError, match=line):
            jl.laws[name]
    with pytest.raises(jl.UnknownNameError, match="did you mean 'absent'"):
        jl.laws["abscent"]


@pytest.mark.parametrize("options", [(), ("--json",), ("--advice",)])
def test_the_list_tells_of_entry_points_that_cannot_be_used(points, run, options):
    status, out, err = run("list", *options)
    assert status == 0
    assert err.splitlines() == [f"jaxlaws: warning: {line}" for line in points]
    assert "extra" in out
    assert "chinchilla" in out
    status, out, err = run("show", "failing")
    assert (status, out, err) == (2, "", f"jaxlaws: {points[1]}\n")


def test_of_two_entry_points_of_one_name_the_first_is_used(monkeypatch):
    points = [
        EntryPoint("toy_a", "math:pi", "jaxlaws.laws"),
        EntryPoint("toy_a", "jaxlaws.catalogue.moe:LAW", "jaxlaws.laws"),
    ]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points)
    with pytest.warns(UserWarning, match="the entry point") as caught:
        assert "toy_a" not in list(jl.laws)
    assert "holds 3.14" in str(caught[0].message)
    assert "there is another law of that name" in str(caught[1].message)


def test_an_entry_point_must_hold_a_law_of_its_name(monkeypatch):
    points = [
        EntryPoint("mine", "jaxlaws.catalogue.moe:LAW", "jaxlaws.laws"),
        EntryPoint("no", "math:pi", "jaxlaws.laws"),
    ]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: points)
    with pytest.raises(
        ValueError, match="the entry point 'mine' is to hold a law of that name, and holds a law called"
    ):
        jl.laws["mine"]
    with pytest.raises(ValueError, match=r"holds 3\.14"):
        jl.laws["no"]


def test_the_catalogue_is_a_mapping():
    assert len(jl.laws) == len(list(jl.laws)) == len(jl.laws.values())
    assert all(law.name == name for name, law in jl.laws.items())
    assert repr(jl.laws) == f"<laws: {', '.join(jl.laws)}>"
    assert 3 not in jl.laws


def test_nothing_is_computed_at_import():
    import subprocess

    script = "import jaxlaws, sys; assert not [m for m in sys.modules if m.startswith('jaxlaws.catalogue.')]; "
    script += "import jax; assert not jax.config.jax_enable_x64; "
    script += "from jax._src import xla_bridge; assert not xla_bridge._backends; assert 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# What laws count in: another word for the same would hide that two laws do not take the same.
UNITS = {
    "1", "parameters", "tokens", "characters", "words", "examples", "experts", "bits", "steps", "FLOP", "numbers",
    "nat/token", "log10(1e21 FLOP)", "sequences of 2048 tokens", "parameters or tokens", "any", "FLOP/token",
    "bit/character",
}  # fmt: skip


@pytest.mark.parametrize("name", jl.laws)
def test_inputs_and_outputs_are_counted_in_the_same_words(name):
    law = jl.laws[name]
    for v in (*jl.variables(law.inputs), *jl.variables(law.outputs)):
        assert v.unit in UNITS


def test_parameters_are_with_or_without_embeddings():
    unsaid = set()
    for name, law in jl.laws.items():
        for v in jl.variables(law.inputs):
            if v.unit == "parameters" and not any(word in v.description for word in ("embedding", "vocabulary")):
                unsaid.add(name)
    assert unsaid == {
        "data_constrained",
        "data_constrained_overfit",
        "moe",
        "moe_onset",
        "routed",
        "sparsity",
    }
