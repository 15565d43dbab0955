"""Arguments of the wrong kind, as in a notebook: a sentence that names what was given."""

import subprocess
import sys

CALLS = {
    "plmjac.load_model(5)": "ValueError: there is no model 5; there are: debug, ",
    "plmjac.contact_map('tiny')": "ValueError: this is no array of numbers but of type str",
    "plmjac.contact_map(1j * zeros)": "ValueError: these are complex numbers",
    "plmjac.plot_contacts('1TEN_A')": "ValueError: this is no array of numbers but of type str",
    "plmjac.categorical_jacobian('tiny', 'MKT')": "ValueError: the model is what plmjac.load_model returns, not of",
    "plmjac.categorical_jacobian(debug, 5)": "ValueError: a sequence is text, this is of type int",
    "plmjac.couplings(zeros, 'a', 1)": "TypeError: 'str' object cannot be interpreted as an integer",
    "plmjac.couplings(zeros, 0, 3)": "IndexError: the pair (0, 3) is outside the 3 residues",
}
SCRIPT = f"""
import numpy, plmjac
zeros, debug = numpy.zeros((3, 20, 3, 20)), plmjac.load_model("debug")
for call in {list(CALLS)}:
    try:
        eval(call)
    except Exception as error:
        print(f"{{type(error).__name__}}: {{error}}")
    else:
        print("nothing said of", call)
"""


def test_a_sentence_names_what_was_given() -> None:
    """In a process of its own: in this one, types are checked at every call."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240)
    said = done.stdout.splitlines()
    assert len(said) == len(CALLS), done.stderr
    for line, begins in zip(said, CALLS.values(), strict=True):
        assert line.startswith(begins)
