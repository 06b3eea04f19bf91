"""The verdicts of a page as JUnit XML, for CI systems: a test case for each thing that was judged."""

import re
import xml.etree.ElementTree as ET

from robustbench_twicing.errors import UserError
from robustbench_twicing.report.page import Page

_TAGS = {"failed": "failure", "unclear": "error"}


def write(page: Page) -> bytes:
    """JUnit XML. What failed is a failure, what is unclear an error. Raises `UserError` if nothing was judged."""
    if not page.judged:
        raise UserError(f"Nothing is judged in {page.title!r}.", "JUnit needs verdicts, such as those of: gate.")
    outcomes = [judged.outcome for judged in page.judged]
    attributes = {
        "name": page.title,
        "tests": str(len(outcomes)),
        "failures": str(outcomes.count("failed")),
        "errors": str(outcomes.count("unclear")),
    }
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", {key: _legal(value) for key, value in attributes.items()})
    for judged in page.judged:
        case = ET.SubElement(suite, "testcase", {"classname": _legal(judged.group), "name": _legal(judged.name)})
        reason = _legal(judged.reason)
        if judged.outcome in _TAGS:
            found = ET.SubElement(case, _TAGS[judged.outcome], {"type": judged.verdict, "message": reason})
            found.text = reason
        else:
            ET.SubElement(case, "system-out").text = reason
    ET.indent(root)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"
    return content


def _legal(text: str) -> str:
    """Without the characters that XML 1.0 has no way to write."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
