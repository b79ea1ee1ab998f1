"""Laws that other processes cannot import, in other processes: of a program, of a notebook, and of a file."""

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlaws as jl

LAW = """\
import jax.numpy as jnp
import numpy as np
from jaxlaws import Law, Scalar, Source, record, var
from jaxlaws.numerics import power

SCALE = 3.0

@record
class Inputs:
    tokens: Scalar = var("tokens", range=(1, 10))

@record
class Coefs:
    A: Scalar = var("weight", bounds=(0, 9))

@record
class Outputs:
    loss: Scalar = var("loss")

def nested(a, depth=2):
    return a if depth == 0 else nested(a, depth - 1) + 0.0

def loss(c, x):
    scaled = lambda a: SCALE * nested(a)
    return scaled(c.A) * power(x.tokens, -1.0) + jnp.zeros(())

LAW = Law(title="t", fn=loss, inputs=Inputs, coefs=Coefs, outputs=Outputs, formula="3*A/tokens",
          groups={"g": Coefs(A=2.0)}, source=Source(reference="r"))
"""
DUMP = """
import dataclasses, pickle
with open("law.pkl", "wb") as file:
    pickle.dump((LAW, LAW.coefs(A=4.0), dataclasses.replace(LAW, groups={"h": LAW.coefs(A=1.0)})), file)
assert pickle.loads(pickle.dumps(LAW)) is LAW
"""
LOAD = """
import pickle, jax
import jaxlaws as jl
with open("law.pkl", "rb") as file:
    law, coefs, other = pickle.load(file)
assert (law("g", tokens=2.0), law(coefs, tokens=2.0), other("h", tokens=2.0)) == (3.0, 6.0, 1.5)
assert jax.tree.leaves(coefs) == [4.0]
assert pickle.loads(pickle.dumps(law)) is law
"""
POOL = """
def work(law, coefs):
    return law is LAW, law(coefs, tokens=2.0).item(), law, coefs

if __name__ == "__main__":
    import multiprocessing, sys
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(sys.argv[1])) as pool:
        same, value, law, coefs = pool.submit(work, LAW, Coefs(A=4.0)).result()
    assert (same, value, law is LAW, type(coefs) is Coefs) == (True, 6.0, True, True)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(jl.__file__)))


def run(*args, text=None):
    subprocess.run([sys.executable, *args], check=True, input=text, text=True)


@pytest.mark.parametrize("where", ["program", "notebook", "file"])
def test_a_law_goes_to_a_process_that_cannot_import_it(where):
    if where == "program":
        Path("own.py").write_text(LAW + DUMP)
        run("own.py")
    elif where == "notebook":  # code that is in no file
        run("-", text=LAW + DUMP)
    else:
        Path("own.py").write_text(LAW)
        run("-c", f"import jaxlaws as jl\nLAW = jl.law_in('own.py')\n{DUMP}")
        os.unlink("own.py")
    run("-c", LOAD)


@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "fork"])
def test_a_law_of_a_program_is_its_own_in_processes_that_it_starts(method):
    Path("own.py").write_text(LAW + POOL)
    run("own.py", method)


def test_a_fit_of_a_law_in_a_file_keeps_its_coefficients():
    Path("own.py").write_text(LAW)
    law = jl.law_in("own.py")
    coefs, groups = pickle.loads(pickle.dumps((law.coefs(A=4.0), law.groups)))
    assert type(coefs) is type(groups["g"]) is law.coefs
    Path("coefs.pkl").write_bytes(pickle.dumps({"a": coefs}))
    run("-c", "import pickle; assert pickle.load(open('coefs.pkl', 'rb'))['a'].A == 4.0")
