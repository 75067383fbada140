"""The verifier against an export that openssl signed, and against every way of changing it."""

import json
import unittest
from pathlib import Path

import journal

EXPORT = Path(__file__).parents[2] / "ctl/tests/data/journal.jsonl"


class Verifier(unittest.TestCase):
    def setUp(self):
        self.lines = EXPORT.read_text(encoding="utf-8").splitlines()

    def changed(self, line, **fields):
        lines = list(self.lines)
        lines[line] = json.dumps(json.loads(lines[line]) | fields)
        return lines

    def test_it_is_intact(self):
        first, last, signatures, keys = journal.verify(self.lines)
        self.assertEqual((first, last, signatures, len(keys)), (1, len(self.lines), 1, 1))

    def test_changes_are_located(self):
        for lines, says in [
            (self.changed(1, actor="x"), "entry 2 was changed"),
            (self.changed(1, at="2026-11-25T00:00:00Z"), "entry 2 was changed"),
            (self.changed(2, previous="00" * 32), "entry 3 does not follow entry 2"),
            (self.lines[:1] + self.lines[2:], "entry 2 is missing"),
        ]:
            with self.assertRaisesRegex(journal.Broken, says):
                journal.verify(lines)

    def test_a_forged_signature_is_located(self):
        at = next(i for i, line in enumerate(self.lines) if "journal.signed" in line)
        entry = json.loads(self.lines[at])
        body = json.loads(entry["body"])
        # The signature of the same key over something else.
        signature = bytearray(journal.base64.b64decode(body["signature"]))
        signature[-1] ^= 1
        body["signature"] = journal.base64.b64encode(bytes(signature)).decode()
        entry["body"] = json.dumps(body)
        entry["hash"] = journal.digest(entry)
        with self.assertRaisesRegex(journal.Broken, "openssl says"):
            journal.verify(self.lines[:at] + [json.dumps(entry)])


if __name__ == "__main__":
    unittest.main()
