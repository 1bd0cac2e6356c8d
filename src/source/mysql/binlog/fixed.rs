//! MariaDB's types of fixed length, which its log holds as BINARY (`plugin/type_inet`, `plugin/type_uuid`).
//!
//! Trailing zero bytes are not in the log, as with every BINARY.

use std::net::Ipv6Addr;

use super::cursor::malformed;
use super::number::{Out, write_u64};
use crate::error::Result;

fn padded<const N: usize>(value: &[u8]) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    bytes
        .get_mut(..value.len())
        .ok_or_else(|| malformed("an INET4, INET6 or UUID is longer than its column"))?
        .copy_from_slice(value);
    Ok(bytes)
}

/// INET4: four bytes, `a.b.c.d`.
pub(super) fn inet4(value: &[u8], out: &mut Out) -> Result<()> {
    dotted(padded::<4>(value)?, out);
    Ok(())
}

fn dotted(bytes: [u8; 4], out: &mut Out) {
    for (at, byte) in bytes.into_iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b".");
        }
        write_u64(u64::from(byte), out);
    }
}

/// INET6: 16 bytes, printed as `Inet6::to_string` does (`plugin/type_inet/sql_type_inet.cc`): the longest run of zero
/// groups (the first of equal ones, a single one too) becomes `::`; behind `::` and `::ffff:` IPv4 is printed dotted.
pub(super) fn inet6(value: &[u8], out: &mut Out) -> Result<()> {
    let bytes = padded::<16>(value)?;
    let groups = Ipv6Addr::from(bytes).segments();
    let (mut start, mut length) = (8, 0);
    let mut at = 0;
    while at < 8 {
        let run = groups[at..].iter().take_while(|group| **group == 0).count();
        if run > length {
            (start, length) = (at, run);
        }
        at += run.max(1);
    }
    let is_v4 = start == 0 && (length == 6 || (length == 5 && groups[5] == 0xFFFF));
    let mut at = 0;
    while at < 8 {
        if at == start {
            out.extend_from_slice(b"::");
            at += length;
            continue;
        }
        if at > 0 && at != start + length {
            out.extend_from_slice(b":");
        }
        if is_v4 && at == 6 {
            dotted([bytes[12], bytes[13], bytes[14], bytes[15]], out);
            break;
        }
        hex(groups[at], out);
        at += 1;
    }
    Ok(())
}

fn hex(group: u16, out: &mut Out) {
    let digits = (4 - group.leading_zeros() / 4).max(1);
    for digit in (0..digits).rev() {
        out.extend_from_slice(&[DIGITS[usize::from(group >> (4 * digit) & 15)]]);
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// UUID: 16 bytes in the order in which they are printed, whatever the order in the table (`UUID::pack` in
/// `plugin/type_uuid/sql_type_uuid.h`).
pub(super) fn uuid(value: &[u8], out: &mut Out) -> Result<()> {
    let bytes = padded::<16>(value)?;
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.extend_from_slice(b"-");
        }
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn text(value: &[u8], write: fn(&[u8], &mut Out) -> Result<()>) -> String {
        let mut out = Out::new();
        write(value, &mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn fixed_types_are_printed_with_their_zeros_restored() {
        assert_eq!(text(&[192, 168], inet4), "192.168.0.0");
        assert_eq!(text(&[], inet6), "::");
        assert_eq!(text(&[0x20, 1, 0xD, 0xB8], inet6), "2001:db8::");
        let uuid_bytes: Vec<u8> = (0x10..0x20).collect();
        assert_eq!(text(&uuid_bytes, uuid), "10111213-1415-1617-1819-1a1b1c1d1e1f");
        assert!(uuid(&[0; 17], &mut Out::new()).is_err());
    }
}
