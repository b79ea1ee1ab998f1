"""What the command shows on a terminal of 80 columns: no number and no name is cut."""

import itertools
import json
import math
import re
import sys

import numpy as np
import pytest

import jaxlaws as jl
from jaxlaws.display import print_table


@pytest.fixture
def shown(run, capsys, monkeypatch):
    """What a command shows on a terminal, and its exit status and standard error."""

    def shown(*args):
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        return run(*args)

    return shown


@pytest.fixture
def printed(capsys, monkeypatch):
    """A table on a terminal."""

    def printed(header, rows):
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        print_table(header, rows)
        return capsys.readouterr().out

    return printed


def test_numbers_and_names_are_whole_whatever_the_size_of_a_table(printed):
    random = np.random.default_rng(0)
    words = ["loss", "('gpt2', 'flan')", "2.14e+10", "8.953e+09 to 1.025e+10", "0.35 ± 0.02", "", "many words " * 5]
    for columns, rows in itertools.product((1, 2, 5, 9, 14), (0, 1, 2, 7, 40)):
        header = [f"column_{i}" for i in range(columns)]
        # One kind of cell per column, with its place in it.
        kinds = random.choice(words, columns)
        cells = [[f"{kind} {i}.{j}" if kind.strip() else "" for j, kind in enumerate(kinds)] for i in range(rows)]
        out = printed(header, cells)
        assert not rows or max(len(line.rstrip()) for line in out.splitlines()) <= 80
        found = out.split()
        for word in {word for row in (header, *cells) for cell in row for word in cell.split()}:
            assert word in found


def test_what_is_wider_than_a_terminal_is_still_whole(printed):
    wide = "1" * 100
    assert wide in printed(["a", "b"], [[wide, "2"]])
    assert "x" * 100 in printed(["a", "b"], [["x" * 100, "words " * 40]])


@pytest.mark.filterwarnings("ignore::jaxlaws.RangeWarning")
def test_a_table_that_is_too_wide_is_turned(shown):
    given = "precision --budget 1e22 weight_bits=4,8 --cost bits --group table2 --within 1%".split()
    status, out, _ = shown("allocate", *given)
    assert status == 0
    rows = {line.split("  ")[0]: line.split()[-2:] for line in out.splitlines() if "  " in line}
    found = jl.allocate(
        jl.laws["precision"],
        "table2",
        budget=1e22,
        weight_bits=[4, 8],
        cost=jl.costs.training_in_bits(),
        within=0.01,
    )
    assert rows["weight_bits"] == ["4", "8"]
    assert rows["params"] == [f"{x:.4g}" for x in found.inputs.params]
    assert rows["highest params"] == [f"{x:.4g}" for x in found.highest.params]
    assert rows["lowest kv_bits"] == [f"{x:.4g}" for x in found.lowest.kv_bits]


def test_intervals_of_several_problems_stay_on_their_lines(shown):
    given = "--budget 1e22 --cost inference --inference-tokens 1e11,1e12 --draws published --group besiroglu2024"
    status, out, _ = shown("allocate", "chinchilla", *given.split())
    assert status == 0
    number = r"\d\.\d+(?:e\+\d\d)?"
    for name in ("params in 90%", "tokens in 90%", "90% of draws"):
        assert re.search(rf"^{name}( +{number} to {number}){{2}} *$", out, re.MULTILINE)


@pytest.mark.parametrize("name", [*jl.laws])
def test_show_keeps_names_and_numbers(shown, name):
    law = jl.laws[name]
    status, out, err = shown("show", name)
    assert (status, err) == (0, "")
    found = out.replace("[", " ").replace("]", " ").split()
    for group, coefs in law.groups.items():
        assert all(word in found for word in group.split())
        assert all(f"{x:.7g}" in found for value in jl.as_dict(coefs).values() for x in np.ravel(value))
        errors = law.stderr_of(group)
        if errors is not None:
            assert all(f"{x:g}" in found for value in jl.as_dict(errors).values() for x in np.ravel(value))
    start, end = out.index("\ninput"), out.index("\nobjective ")
    assert max(len(line.rstrip()) for line in out[start:end].splitlines()) <= 80
    shortened = any(
        float(f"{x:.7g}") != x for c in law.groups.values() for value in jl.as_dict(c).values() for x in np.ravel(value)
    )
    assert (f"jl.laws['{name}'].groups" in out) == shortened
    for row in json.loads(shown("show", name, "--json")[1])["groups"].values():  # has all digits
        assert any(row == jl.as_dict(coefs) for coefs in law.groups.values())


def test_show_has_names_of_groups_in_front_of_their_coefficients(shown):
    out = shown("show", "chinchilla")[1]
    assert re.search(r"^hoffmann2022 +1\.693374 +406\.401 +410\.7228 ", out, re.MULTILINE)
    assert re.search(r"^± +0\.0257 ", out, re.MULTILINE)


def test_show_tells_what_a_law_has_and_no_more(shown):
    domains = shown("show", "bimix")[1]
    assert "(proportion_domain_1, ...)" in domains
    assert "proportion_domain_5)" in shown("show", "data_mixing")[1]
    assert "floor" not in domains
    assert "floor" in shown("show", "parallel")[1]
    source = jl.laws["parallel_square_root"].source
    root = shown("show", "parallel_square_root")[1]
    assert "group     s_base_refit, rl_r_refit, hash_refit\n" in shown("show", "routed")[1]
    assert root.count(source.evidence) == root.count(source.reference) == 1
    assert shown("show", "chinchilla")[1].count("\ngroup  ") == 3  # one of them heads the table
    assert " ".join(jl.laws["chinchilla"].advice.split()) in " ".join(shown("show", "chinchilla")[1].split())


def test_errors_of_vectors_are_shown(run, monkeypatch):
    law = jl.laws["data_mixing"]
    (name,) = law.groups
    half = type(law.groups[name])(**{key: np.asarray(x) / 2 for key, x in vars(law.groups[name]).items()})
    monkeypatch.setattr(type(law), "stderr_of", lambda self, group: half)
    out = run("show", "data_mixing")[1]
    for key, values in vars(half).items():
        assert f"  {key} ± " in out
        assert all(f"{x:g}" in out for x in np.ravel(values))


LAW = """\
from jaxlaws import Law, Scalar, Source, record, var

@record
class Inputs:
    tokens: Scalar = var("tokens", range=(1, 10))

@record
class Coefs:
    A: Scalar = var("weight", bounds=(0, 9))

@record
class Outputs:
    loss: Scalar = var("loss")

def loss(c, x):
    return c.A / {}

LAW = Law(title="t", fn=loss, inputs=Inputs, coefs=Coefs, outputs=Outputs, formula="A/tokens",
          groups={{"g": Coefs(A=1.0)}}, source=Source(reference="r"))
"""


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("x.token", "AttributeError: 'Inputs' object has no attribute 'token'"),
        ("jnp.sqrt(x.tokens)", "NameError: name 'jnp' is not defined"),
        ("float(x.tokens)", "ConcretizationTypeError"),
        ("(x.tokens if x.tokens > 1 else 1)", "TracerBoolConversionError"),
        ("int('seven\\nor eight')", "ValueError: invalid literal"),
        ("(1 + 'x')", "TypeError: unsupported operand"),
    ],
)
def test_a_law_of_ones_own_that_raises_gets_one_line(run, tmp_path, monkeypatch, wrong, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_law.py").write_text(LAW.format(wrong))
    (tmp_path / "runs.csv").write_text("tokens,loss\n" + "".join(f"{i},{1 / i}\n" for i in range(1, 9)))
    for command in ("predict ./my_law.py tokens=3", "allocate my_law.py --budget 9", "fit my_law.py runs.csv"):
        status, out, err = run(*command.split())
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("jaxlaws: my_law.py, line 16: ")
        assert words in err
        assert err.endswith("; jaxlaws.testing.check_law tests a law\n")


def test_what_a_file_lacks_is_told_with_its_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_law.py").write_text("import math\n\nfrom math import cubic_root\n")
    err = run("predict", "my_law.py", "tokens=3")[2]
    assert err.startswith("jaxlaws: my_law.py, line 3: ImportError: cannot import name 'cubic_root'")
    (tmp_path / "my_law.py").write_text("x = (\n")
    err = run("predict", "my_law.py", "tokens=3")[2]
    assert err.startswith("jaxlaws: my_law.py: SyntaxError: ")
    assert "line 1" in err


def test_coefficients_of_a_fit_that_did_not_converge_get_a_warning(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    law = jl.laws["chinchilla"]
    good = {"coefs": jl.as_dict(law.groups["sardana2024"])}
    groups = {"mine": {**good, "converged": False}, "other": {**good, "converged": True}, "old": good}
    (tmp_path / "coefs.json").write_text(json.dumps({"law": law.name, "groups": groups}))
    said = "jaxlaws: warning: coefs.json: group mine: the search for these coefficients did not converge\n"
    point = ("params=1e9", "tokens=1e10")
    for given in (["predict", law.name, *point], ["allocate", law.name, "--budget", "1e22"]):
        given += ["--coefs", "coefs.json"]
        assert run(*given, "--group", "mine")[::2] == (0, said)
        assert run(*given, "--group", "other")[::2] == (0, "")
    assert run("predict", law.name, *point, "group=mine,other,old", "--coefs", "coefs.json")[::2] == (0, said)
    (tmp_path / "coefs.json").write_text(json.dumps({"mine": good["coefs"]}))
    assert run("predict", law.name, *point, "--coefs", "coefs.json")[::2] == (0, "")


def test_names_that_may_be_typed(run):
    assert run("predict", "step_law", "N=7e9", "D=1.4e11", "group=dense", "--json")[0] == 0
    assert run("predict", "parallel", "n=1e9", "p=2", "kind=pile", "--group-column", "kind", "--json")[0] == 0


def test_python_says_what_is_needed():
    with pytest.raises(TypeError, match=r"a law such as jl.laws\['parallel'\] is needed, not 'chinchilla'"):
        jl.predict_interval("chinchilla", "besiroglu2024", params=1e9, tokens=1e10)
    with pytest.raises(TypeError, match="bimix has no group; coefficients are needed, such as those of a fit"):
        jl.laws["bimix"](None, proportions=[0.5, 0.5], steps=1000)
    with pytest.raises(jl.UnknownNameError, match="unknown group of chinchilla None; known: 'hoffmann2022', "):
        jl.laws["chinchilla"](None, params=1e9, tokens=1e10)
    assert math.isfinite(jl.laws["chinchilla"]("sardana2024", params=1e9, tokens=1e10))
