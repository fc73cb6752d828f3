"""Symbols to bytes and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdfs.codec.coding.entropy import CLASSES, FLAG_CLASSES, PRECISION, Decoder, Tables, encode, flag_class, scale_class
from sdfs.errors import DamagedError

SYMBOLS = st.integers(-70_000, 70_000)


@pytest.fixture(scope="module")
def tables() -> Tables:
    """The last classes are those of flags."""
    reach = np.array([0, *[2 + k for k in range(1, CLASSES)], *[1] * FLAG_CLASSES], np.int32)
    frequencies = []
    for r in reach[1:]:
        table = np.full(2 * r + 2, 1000, np.int32)
        table[r] = (1 << PRECISION) - 1000 * (2 * r + 1)
        frequencies.append(table)
    return Tables(reach, np.concatenate(frequencies), CLASSES + FLAG_CLASSES)


@given(passes=st.lists(st.lists(st.tuples(st.integers(0, CLASSES + FLAG_CLASSES - 1), SYMBOLS), max_size=40), max_size=4))
def test_symbols_come_back(tables: Tables, passes: list[list[tuple[int, int]]]) -> None:
    coded = []
    for one in passes:
        classes = np.array([k for k, _ in one], np.uint8)
        coded.append((np.array([s if k else 0 for k, s in one], np.int32), classes))
    decoder = Decoder(encode(coded, tables), tables)
    for symbols, classes in coded:
        np.testing.assert_array_equal(decoder.read(classes), symbols)
    decoder.finish()


def test_class_0_costs_nothing(tables: Tables) -> None:
    zeros = np.zeros(10_000, np.int32)
    assert len(encode([(zeros, zeros.astype(np.uint8))], tables)) == 1


def test_likely_symbols_cost_little(tables: Tables) -> None:
    zeros = np.zeros(10_000, np.int32)
    assert len(encode([(zeros, np.full(10_000, 1, np.uint8))], tables)) < 16


@given(data=st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused(tables: Tables, data: bytes) -> None:
    try:
        decoder = Decoder(data, tables)
        assert len(decoder.read(np.full(50, 7, np.uint8))) == 50
        decoder.finish()
    except DamagedError:
        pass


def test_unread_symbols_are_damage(tables: Tables) -> None:
    data = encode([(np.arange(-3, 4, dtype=np.int32), np.full(7, 9, np.uint8))], tables)
    with pytest.raises(DamagedError, match="not all"):
        Decoder(data, tables).finish()


def test_truncated_data_is_damage(tables: Tables) -> None:
    symbols, classes = np.array([-3, 3000, 5], np.int32), np.full(3, 9, np.uint8)
    data = encode([(symbols, classes)], tables)
    np.testing.assert_array_equal(Decoder(data, tables).read(classes), symbols)
    with pytest.raises(DamagedError, match="want"):
        Decoder(data[:2], tables)
    for length in range(3, len(data)):
        with pytest.raises(DamagedError):  # noqa: PT012
            decoder = Decoder(data[:length], tables)
            decoder.read(classes)
            decoder.finish()


def test_a_zero_byte_at_the_end_is_damage(tables: Tables) -> None:
    data = encode([(np.arange(-3, 4, dtype=np.int32), np.full(7, 9, np.uint8))], tables)
    with pytest.raises(DamagedError, match="zero byte"):
        Decoder(data + b"\0", tables)


def test_a_table_that_is_not_normalised_is_refused(tables: Tables) -> None:
    broken = np.concatenate(tables.frequencies)
    broken[3] += 1
    with pytest.raises(DamagedError, match="class 1 is not normalised"):
        Tables(tables.reach, broken, CLASSES + FLAG_CLASSES)


def test_tables_of_fewer_classes_are_refused(tables: Tables) -> None:
    with pytest.raises(DamagedError, match="do not fit"):
        Tables(tables.reach, np.concatenate(tables.frequencies), CLASSES)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scale_classes_are_quarter_octaves(dtype: type) -> None:
    log2_scales = np.array([-9.0, -3.0625, -3.0, -2.8125, -2.75, 0.0, 40.0], dtype)
    np.testing.assert_array_equal(scale_class(log2_scales), [0, 0, 1, 1, 2, 13, CLASSES - 1])


def test_every_scale_has_the_class_that_whole_numbers_give() -> None:
    sixteenths = np.arange(-65536, 65536)
    wanted = np.clip((sixteenths + 48) // 4 + 1, 0, CLASSES - 1)
    np.testing.assert_array_equal(scale_class((sixteenths / 16).astype(np.float32)), wanted)


def test_flag_classes_are_half_units_of_the_odds() -> None:
    logits = np.array([-1e6, -4.25, -0.2501, -0.25, 0.0, 0.2499, 0.25, 3.75, 4.0, 1e6], np.float32)
    middle = CLASSES + FLAG_CLASSES // 2
    wanted = [CLASSES, CLASSES, middle - 1, middle, middle, middle, middle + 1, middle + 8, middle + 8, CLASSES + FLAG_CLASSES - 1]
    np.testing.assert_array_equal(flag_class(logits), wanted)
