"""The comparison finds what it is there for."""

import unittest

from compare import compare, compare_point

SENT = [
    {"kind": "start", "tx": -1, "meter": 1000, "timestamp": "t1", "tag": "A"},
    {"kind": "meter", "tx": -1, "values": [{"timestamp": "t2", "sampled_value": [{"value": "1010"}]}]},
    {"kind": "stop", "tx": -1, "meter": 1020, "timestamp": "t3"},
    {"kind": "start", "tx": -2, "meter": 1020, "timestamp": "t4", "tag": "A"},
    {"kind": "stop", "tx": -2, "meter": 1021, "timestamp": "t5"},
]


def received():
    return [{**entry, "tx": 100 if entry["tx"] == -1 else 101} for entry in SENT]


class Compare(unittest.TestCase):
    def differences(self, change):
        got = received()
        change(got)
        return compare_point(SENT, got)

    def test_equal(self):
        self.assertEqual(self.differences(lambda got: None), [])

    def test_lost(self):
        self.assertEqual(self.differences(lambda got: got.pop(1)), ["lost: meter of transaction -1 at t2"])

    def test_twice(self):
        self.assertEqual(
            self.differences(lambda got: got.insert(1, got[0])), ["2 times: start of transaction -1 at t1"]
        )

    def test_never_sent(self):
        self.assertEqual(
            self.differences(lambda got: got.append({"kind": "stop", "tx": 7, "meter": 1, "timestamp": "t9"})),
            ["never sent: stop of transaction 7 at t9"],
        )

    def test_order(self):
        def swap(got):
            got[1], got[2] = got[2], got[1]

        self.assertIn("out of order", self.differences(swap)[0])

    def test_energy(self):
        self.assertEqual(len(self.differences(lambda got: got[2].update(meter=1019))), 2)

    def test_transaction_under_another_id(self):
        self.assertIn("instead of 100", self.differences(lambda got: got[2].update(tx=101))[0])

    def test_two_transactions_under_one_id(self):
        def merge(got):
            for entry in got:
                entry["tx"] = 100

        self.assertIn("holds -1 and -2", self.differences(merge)[0])

    def test_a_repetition_under_its_id_is_counted_and_must_say_the_same(self):
        first = {"kind": "stop", "point": "CP01", "tx": 100, "meter": 5, "timestamp": "t", "message": "m", "again": False}
        mine = {"kind": "stop", "point": "CP01", "tx": -1, "meter": 5, "timestamp": "t"}
        [row] = compare([mine], [first, {**first, "again": True}])
        self.assertEqual((row["differences"], row["repeated under their id"]), ([], 1))
        [row] = compare([mine], [first, {**first, "again": True, "meter": 6}])
        self.assertEqual(len(row["differences"]), 1)


if __name__ == "__main__":
    unittest.main()
