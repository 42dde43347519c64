//! What is kept of a job's output stream.

/// The beginning and the end of a stream, in limited memory whatever its length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    half: usize,
    head: Vec<u8>,
    /// The last bytes after the head. It grows to twice its limit before it is cut back, so that a byte is moved at most
    /// once.
    tail: Vec<u8>,
    total: u64,
    /// How many bytes were missing before secrets were removed from what is kept.
    missing: Option<u64>,
}

impl Captured {
    /// An empty stream of which at most so many bytes are kept.
    #[must_use]
    pub fn keeping(bytes: u64) -> Self {
        Self {
            half: usize::try_from(bytes / 2).unwrap_or(usize::MAX / 4),
            ..Self::default()
        }
    }

    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let room = (self.half - self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.half)..];
        self.tail.extend_from_slice(rest);
        if self.tail.len() > 2 * self.half {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..surplus);
    }

    /// Removes secrets from what is kept: by `whole` if nothing of the stream is missing, otherwise by `head` and `tail`
    /// from its two parts.
    pub(crate) fn redact(
        &mut self,
        whole: &dyn Fn(&[u8]) -> Vec<u8>,
        head: &dyn Fn(&[u8]) -> Vec<u8>,
        tail: &dyn Fn(&[u8]) -> Vec<u8>,
    ) {
        self.cut();
        if self.truncated() {
            self.missing = Some(self.total - (self.head.len() + self.tail.len()) as u64);
            self.head = head(&self.head);
            self.tail = tail(&self.tail);
        } else {
            self.head.append(&mut self.tail);
            self.head = whole(&self.head);
        }
    }

    /// What is kept of the beginning and of the end, for a sandbox that runs elsewhere and sends it here.
    #[must_use]
    pub fn parts(&self) -> (&[u8], &[u8]) {
        let kept_tail = self.tail.len().min(self.half);
        (&self.head, &self.tail[self.tail.len() - kept_tail..])
    }

    /// The stream of which these are the [`parts`](Self::parts). `None` if no stream of that length, of which at most so many
    /// bytes are kept, has such parts: then the sender is wrong.
    #[must_use]
    pub fn from_parts(bytes: u64, head: Vec<u8>, tail: Vec<u8>, total: u64) -> Option<Self> {
        let half = Self::keeping(bytes).half;
        let kept = head.len() + tail.len();
        let whole = if total > (2 * half) as u64 {
            head.len() == half && tail.len() == half
        } else {
            kept as u64 == total && head.len() == kept.min(half)
        };
        whole.then_some(Self {
            half,
            head,
            tail,
            total,
            missing: None,
        })
    }

    /// How long the stream was in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether bytes in the middle are missing.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.total > (2 * self.half) as u64
    }

    /// What is kept, with a line in the place of missing bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let kept_tail = match self.missing {
            None => self.tail.len().min(self.half),
            Some(_) => self.tail.len(),
        };
        let tail = &self.tail[self.tail.len() - kept_tail..];
        let mut all = self.head.clone();
        if self.truncated() {
            let kept = (self.head.len() + tail.len()) as u64;
            let missing = self.missing.unwrap_or_else(|| self.total - kept);
            all.extend_from_slice(format!("\n[{missing} bytes are not kept]\n").as_bytes());
        }
        all.extend_from_slice(tail);
        all
    }

    /// The same as text: invalid UTF-8, and U+0000, which a database cannot store, become U+FFFD.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).replace('\0', "\u{fffd}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_stream_is_kept_whole_and_a_long_one_at_both_ends() {
        let mut short = Captured::keeping(8);
        short.push(b"abc");
        short.push(b"defgh");
        assert_eq!(
            (short.text().as_str(), short.truncated()),
            ("abcdefgh", false)
        );

        let mut long = Captured::keeping(8);
        for byte in b'a'..=b'z' {
            long.push(&[byte]);
        }
        assert_eq!(long.text(), "abcd\n[18 bytes are not kept]\nwxyz");
        assert!(long.truncated());
        assert_eq!(long.total(), 26);
    }

    #[test]
    fn pieces_of_every_size_come_to_the_same() {
        let text: Vec<u8> = (0..5000_u32).map(|it| (it % 251) as u8).collect();
        let whole = {
            let mut whole = Captured::keeping(100);
            whole.push(&text);
            whole.bytes()
        };
        for size in [1, 7, 49, 50, 51, 100, 1000, 4999] {
            let mut pieces = Captured::keeping(100);
            text.chunks(size).for_each(|piece| pieces.push(piece));
            assert_eq!(pieces.bytes(), whole, "{size}");
            assert!(pieces.tail.len() <= 100);
        }
    }

    #[test]
    fn a_stream_that_is_sent_in_parts_is_the_same_there() {
        for length in [0, 1, 4, 5, 8, 9, 100] {
            let mut stream = Captured::keeping(8);
            stream.push(&vec![b'x'; length]);
            let (head, tail) = stream.parts();
            let there = Captured::from_parts(8, head.to_vec(), tail.to_vec(), length as u64);
            let there = there.unwrap();
            assert_eq!(there.bytes(), stream.bytes(), "{length}");
            assert_eq!(there.total(), stream.total());
        }
    }

    #[test]
    fn parts_of_no_stream_are_refused() {
        for (head, tail, total) in [(5, 0, 5), (4, 5, 9), (4, 4, 7), (3, 4, 100), (0, 0, 1)] {
            let parts = Captured::from_parts(8, vec![b'x'; head], vec![b'x'; tail], total);
            assert_eq!(parts, None, "{head} {tail} {total}");
        }
    }

    #[test]
    fn nothing_is_kept_where_nothing_may_be() {
        let mut none = Captured::keeping(0);
        none.push(b"abc");
        assert!(none.truncated());
        assert_eq!(none.text(), "\n[3 bytes are not kept]\n");
    }

    #[test]
    fn text_is_what_a_database_can_hold() {
        let mut odd = Captured::keeping(100);
        odd.push(b"a\0b\xffc");
        assert_eq!(odd.text(), "a\u{fffd}b\u{fffd}c");
    }
}
