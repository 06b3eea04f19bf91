"""Data set name -> what it is."""

from robustbench_twicing.catalog.suites import is_own, known_suites


def titles() -> dict[str, str]:
    """Every data set the tool knows, with one line each."""
    embedded = {"digits": "Digits: 597 of scikit-learn's handwritten digits, RGB 32 x 32; ships with the tool"}
    return embedded | {name: suite.title for name, suite in known_suites().items()}


def on_disk() -> list[str]:
    """Those that lie in a folder of the user's."""
    return [name for name, suite in known_suites().items() if suite.layout != "generated"]


def known_data(name: str) -> bool:
    """The tool knows this data set, or it is the path of a suite of the user's own."""
    return is_own(name) or name in titles()
