//! Server-sent events, as far as chat completions use them: the `data` of each event.

/// Cuts a stream of bytes into the data of its events.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Bytes of a line whose end has not come yet.
    line: Vec<u8>,
    /// The data of the event at hand.
    data: Vec<u8>,
}

impl Events {
    /// Takes the next bytes; calls `event` with the data of each event that they complete.
    pub(crate) fn push<E>(
        &mut self,
        bytes: &[u8],
        mut event: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if line.is_empty() {
                let data = std::mem::take(&mut self.data);
                if !data.is_empty() {
                    event(&data)?;
                }
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data
                    .extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
            // Comments, which keep a connection alive, and the other fields say nothing to us.
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let mut events = Events::default();
        let mut seen = Vec::new();
        for piece in pieces {
            let _ = events.push(piece, |data| {
                seen.push(String::from_utf8(data.to_vec()).unwrap());
                Ok::<(), ()>(())
            });
        }
        seen
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let stream = ": hello\r\nevent: x\r\ndata: {\"a\":\r\ndata:1}\r\n\r\n\ndata: ü\n\ndata: [DONE]\n\ndata: half";
        let expected = ["{\"a\":\n1}", "ü", "[DONE]"];
        assert_eq!(events(&[stream.as_bytes()]), expected);
        for at in 0..stream.len() {
            let (one, other) = stream.as_bytes().split_at(at);
            assert_eq!(events(&[one, other]), expected, "cut at {at}");
        }
    }
}
