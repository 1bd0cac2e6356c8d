//! Reading little-endian fields from a slice whose lengths come from the wire: what is not there is an error, never a
//! panic, and nothing is allocated by a length that was only claimed.

use crate::error::{Error, Kind, Result};

/// The rest of what is being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

/// The error for bytes that are not what the format says.
#[cold]
pub(super) fn malformed(why: impl Into<String>) -> Error {
    Error::new(Kind::Protocol, why)
        .fix("compare with `mysqlbinlog --verify-binlog-checksum` at this position; if it reads the event, report this")
}

#[cold]
fn cut_short() -> Error {
    malformed("a binlog event is cut short")
}

impl<'a> Cursor<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Cursor { rest }
    }

    /// What was not read yet.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn len(self) -> usize {
        self.rest.len()
    }

    pub(super) fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Like [`take`](Self::take), with a length as the wire has it.
    pub(super) fn take_u64(&mut self, length: u64) -> Result<&'a [u8]> {
        self.take(usize::try_from(length).map_err(|_| cut_short())?)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(cut_short)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A little-endian number of 1 to 8 bytes.
    #[inline]
    pub(super) fn uint(&mut self, bytes: usize) -> Result<u64> {
        let taken = self.take(bytes)?;
        let mut wide = [0; 8];
        wide.get_mut(..bytes).ok_or_else(cut_short)?.copy_from_slice(taken);
        Ok(u64::from_le_bytes(wide))
    }

    /// A big-endian number of 1 to 8 bytes.
    #[inline]
    pub(super) fn uint_be(&mut self, bytes: usize) -> Result<u64> {
        let taken = self.take(bytes)?;
        if bytes > 8 {
            return Err(cut_short());
        }
        Ok(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A length-encoded integer
    /// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_dt_integers.html>).
    pub(super) fn lenenc(&mut self) -> Result<u64> {
        match self.u8()? {
            0xFC => self.uint(2),
            0xFD => self.uint(3),
            0xFE => self.uint(8),
            0xFB | 0xFF => Err(malformed("a length in a binlog event is malformed")),
            small => Ok(u64::from(small)),
        }
    }

    /// Bytes with a length-encoded integer before them.
    pub(super) fn lenenc_bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.lenenc()?;
        self.take_u64(length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn numbers_of_every_width_are_read_in_both_orders() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
        for width in 1..=8 {
            let little: u64 = (0..width).map(|at| (at as u64 + 1) << (8 * at)).sum();
            assert_eq!(Cursor::new(&bytes).uint(width).unwrap(), little);
            assert_eq!(Cursor::new(&bytes).uint_be(width).unwrap(), u64::from_be_bytes(bytes) >> (64 - 8 * width));
        }
        assert!(Cursor::new(&[0; 9]).uint(9).is_err());
        assert!(Cursor::new(&[0; 9]).uint_be(9).is_err());
    }

    #[test]
    fn a_length_encoded_integer_has_one_three_four_or_nine_bytes() {
        for (bytes, value) in [
            (&[0xFA][..], 0xFA),
            (&[0xFC, 1, 2], 0x0201),
            (&[0xFD, 1, 2, 3], 0x03_0201),
            (&[0xFE, 1, 0, 0, 0, 0, 0, 0, 0x80], 0x8000_0000_0000_0001),
        ] {
            let mut cursor = Cursor::new(bytes);
            assert_eq!(cursor.lenenc().unwrap(), value);
            assert!(cursor.is_empty());
            assert!(Cursor::new(&bytes[..bytes.len() - 1]).lenenc().is_err());
        }
        assert!(Cursor::new(&[0xFB]).lenenc().is_err());
        assert!(Cursor::new(&[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]).lenenc_bytes().is_err());
    }
}
