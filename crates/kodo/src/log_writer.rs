//! Writes the log from a thread of its own, so that neither a failed write nor a reader that stops reading disturbs the
//! service: lines are lost, and counted.
//!
//! Not by `tracing-appender`: it prints to standard output when its queue is full at the end, and drops failed writes
//! without counting them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Most bytes of lines that wait to be written. What comes beyond is lost.
const MOST_WAITING: usize = 4 << 20;

/// How long [`LogWriter::flush`] waits for a reader that does not read.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The sending side. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    queue: Sender<Message>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that wait.
    waiting: AtomicUsize,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, messages) = channel();
        let state = Arc::new(State::default());
        let of_thread = Arc::clone(&state);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || work(out, &messages, &of_thread))?;
        Ok(Self { queue, state })
    }

    /// How many lines were lost so far.
    pub(crate) fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.state.lost)
    }

    /// Waits until the lines so far are written, in bounded time.
    pub(crate) fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    fn send(&self, line: &[u8]) {
        let waiting = self.state.waiting.fetch_add(line.len(), Ordering::Relaxed);
        let sent = waiting + line.len() <= MOST_WAITING
            && self.queue.send(Message::Line(line.to_owned())).is_ok();
        if !sent {
            self.state.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Takes whole lines: the subscriber writes each with one call.
impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.send(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn work(mut out: impl Write, messages: &Receiver<Message>, state: &State) {
    // How many lost lines the log has been told of, and whether it ends in the middle of a line.
    let (mut told, mut torn) = (0, false);
    while let Ok(message) = messages.recv() {
        let line = match message {
            Message::Line(line) => line,
            Message::Flush(done) => {
                let _ = done.try_send(());
                continue;
            }
        };
        let written = match torn {
            true => write_whole(&mut out, b"\n"),
            false => Ok(()),
        };
        let written = written.and_then(|()| write_whole(&mut out, &line));
        state.waiting.fetch_sub(line.len(), Ordering::Relaxed);
        match written {
            Ok(()) => torn = false,
            Err(Torn(begun)) => {
                torn |= begun;
                state.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        }
        let lost = state.lost.load(Ordering::Relaxed);
        if lost > told {
            tracing::warn!(
                lines = lost - told,
                "lines of this log were lost: it could not be written"
            );
            told = lost;
        }
    }
}

/// A line that could not be written, and whether a part of it was.
struct Torn(bool);

fn write_whole(out: &mut impl Write, line: &[u8]) -> Result<(), Torn> {
    let mut done = 0;
    while done < line.len() {
        match out.write(&line[done..]) {
            Ok(0) => return Err(Torn(done > 0)),
            Ok(some) => done += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Torn(done > 0)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    use super::*;

    /// A disk that takes so many bytes, and then none.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            if disk.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let some = bytes.len().min(disk.0);
            disk.0 -= some;
            disk.1.extend_from_slice(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_the_next_one_begins_on_a_line_of_its_own() {
        let disk = Disk::default();
        disk.0.lock().unwrap().0 = 7;
        let mut log = LogWriter::start(disk.clone()).unwrap();
        for line in ["one\n", "second\n", "third\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        LogWriter::flush(&log);
        assert_eq!(log.lost().load(Ordering::Relaxed), 2);
        disk.0.lock().unwrap().0 = 100;
        log.write_all(b"fourth\n").unwrap();
        LogWriter::flush(&log);
        assert_eq!(disk.0.lock().unwrap().1, b"one\nsec\nfourth\n");
    }

    /// A pipe whose reader does not read.
    struct Stalled(Receiver<()>, Sender<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.send(());
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_beyond_a_bound_and_no_writer_waits_for_it() {
        let (read, stalled) = channel();
        let (writes, written) = channel();
        let mut log = LogWriter::start(Stalled(stalled, writes)).unwrap();
        let line = vec![b'x'; MOST_WAITING / 4];
        for _ in 0..6 {
            log.write_all(&line).unwrap();
        }
        assert_eq!(log.lost().load(Ordering::Relaxed), 2);
        written.recv().unwrap();
        drop(read);
        LogWriter::flush(&log);
        log.write_all(&line).unwrap();
        assert_eq!(log.lost().load(Ordering::Relaxed), 2);
    }
}
