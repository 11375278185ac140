"""The factor rule's bounds at some m and f, worked out from the formulas to six digits; the tests of each bound read it."""

BOUNDS = [  # m, f, least confidence 1 - f / (m + 1), nats of the parts at most, nats of the round jointly at most
    (1, 1.0, 0.5, 0.693147, 0.693147),
    (1, 0.5, 0.75, 0.287682, 0.287682),
    (2, 1.0, 0.666667, 0.810930, 1.098612),
    (4, 1.0, 0.8, 0.892574, 1.609438),
    (8, 1.0, 0.888889, 0.942264, 2.197225),
    (8, 0.5, 0.944444, 0.457267, 0.587787),
    (32, 1.0, 0.969697, 0.984693, 3.496508),
]
