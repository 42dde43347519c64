//! Headers of a tar archive that say something of the entry after them: longer names, finer times.

use std::io::{self, Read};

use tar::EntryType;

use super::UnpackError;

/// The longest name, link target or list of further attributes that an archive may have.
pub(super) const MAX_EXTENSION: u64 = 64 * 1024;

/// What headers before an entry say of it.
#[derive(Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) modified: Option<i64>,
    pub(super) size: Option<u64>,
    pub(super) sparse: bool,
}

/// Takes an entry that says something of the next one. Returns whether it was one.
pub(super) fn extend<R: Read>(
    extended: &mut Extended,
    kind: EntryType,
    entry: &mut tar::Entry<'_, R>,
) -> Result<bool, UnpackError> {
    let known = kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions();
    if !known && !kind.is_pax_global_extensions() {
        return Ok(false);
    }
    let mut content = Vec::new();
    let count = entry.take(MAX_EXTENSION + 1).read_to_end(&mut content);
    if count.map_err(UnpackError::NoArchive)? as u64 > MAX_EXTENSION {
        return Err(UnpackError::NoArchive(io::Error::other(
            "it has a header of more than 64 KiB",
        )));
    }
    let without_end = |mut name: Vec<u8>| {
        while name.last() == Some(&0) {
            name.pop();
        }
        name
    };
    if kind.is_gnu_longname() {
        extended.path = Some(without_end(content));
    } else if kind.is_gnu_longlink() {
        extended.link = Some(without_end(content));
    } else if kind.is_pax_local_extensions() {
        let mut left = &content[..];
        // The records may be followed by zeros.
        while left.first().is_some_and(|first| *first != 0) {
            let malformed = || UnpackError::NoArchive(io::Error::other("malformed pax extension"));
            let (key, value, rest) = pax_record(left).ok_or_else(malformed)?;
            left = rest;
            match key {
                b"path" => extended.path = Some(value.to_vec()),
                b"linkpath" => extended.link = Some(value.to_vec()),
                b"mtime" => {
                    extended.modified = std::str::from_utf8(value).ok().and_then(nanoseconds)
                }
                b"size" => {
                    extended.size = std::str::from_utf8(value)
                        .ok()
                        .and_then(|it| it.parse().ok())
                }
                key => extended.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
    }
    // What counts for all entries of the archive (git puts the commit's name there) says nothing of a tree.
    Ok(true)
}

/// The key and the value of the first record of a pax header, and what follows it. By its length, and not by its line as the
/// crate reads it: a name may have line ends.
fn pax_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// Seconds since 1970 with a fraction, as nanoseconds.
fn nanoseconds(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let fraction: i64 = digits.parse().ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(fraction)?
        .checked_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_a_fraction_is_read_to_the_nanosecond() {
        assert_eq!(nanoseconds("1.5"), Some(1_500_000_000));
        assert_eq!(
            nanoseconds("1700000000.123456789"),
            Some(1_700_000_000_123_456_789)
        );
        assert_eq!(nanoseconds("-1.25"), Some(-1_250_000_000));
        assert_eq!(nanoseconds("soon"), None);
    }

    #[test]
    fn a_pax_record_ends_where_its_length_says() {
        let read = |text: &'static [u8]| pax_record(text);
        let first: (&[u8], &[u8], &[u8]) = (b"path", b"a\nb=c", b"7 x=y\n");
        assert_eq!(read(b"14 path=a\nb=c\n7 x=y\n"), Some(first));
        for malformed in [
            &b"15 path=a"[..],
            b"5 path=a\n",
            b"3 a\n",
            b"0 \n",
            b"2 \n",
            b"-9 a=b\n",
            b"99999999999999999999 a=b\n",
            b"a=b\n",
            b"4 a\n",
        ] {
            assert_eq!(read(malformed), None, "{malformed:?}");
        }
    }
}
