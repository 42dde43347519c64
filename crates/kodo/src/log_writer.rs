//! Writes the log from a thread of its own, so that neither a failed write nor a reader that stops reading disturbs the
//! service: lines are lost, and counted.
//!
//! Not by `tracing-appender`: it prints to standard output when its queue is full at the end, and drops failed writes
//! without counting them.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Most bytes of lines that wait to be written. What comes beyond is lost.
const MOST_WAITING: usize = 4 << 20;

/// How many bytes of lines are written with one call, about.
const AT_ONCE: usize = 64 << 10;

/// How long the thread sleeps where lines come one after the other: each that comes meanwhile need not wake it, which costs
/// a request more than to format its line. A line after a pause is written at once.
const NAP: Duration = Duration::from_millis(2);

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
        thread::Builder::new()
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
    let mut written: Option<Instant> = None;
    while let Ok(first) = messages.recv() {
        if written.is_some_and(|written| written.elapsed() < NAP) {
            thread::sleep(NAP);
        }
        let (mut lines, mut bytes, mut flushed) = (Vec::new(), 0, None);
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    bytes += line.len();
                    lines.push(line);
                }
                Message::Flush(done) => flushed = Some(done),
            }
            let more = bytes < AT_ONCE && flushed.is_none();
            next = more.then(|| messages.try_recv().ok()).flatten();
        }
        write_lines(&mut out, &lines, &mut torn, &state.lost);
        written = Some(Instant::now());
        state.waiting.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(done) = flushed {
            let _ = done.try_send(());
        }
        let lost = state.lost.load(Ordering::Relaxed);
        // Not where nothing is written: this line would be lost as well, and the next one.
        if lost > told && !torn && !lines.is_empty() {
            tracing::warn!(
                lines = lost - told,
                "lines of this log were lost: it could not be written"
            );
            told = lost;
        }
    }
}

/// Writes lines with as few calls as possible. One that cannot be written is counted; those behind it are tried.
fn write_lines(out: &mut impl Write, lines: &[Vec<u8>], torn: &mut bool, lost: &AtomicU64) {
    let mut rest = lines;
    while !rest.is_empty() {
        // The line that is torn ends here.
        let mut text = if *torn { b"\n".to_vec() } else { Vec::new() };
        let mut end = text.len();
        text.extend(rest.iter().flatten());
        let Err(Torn(done)) = write_whole(out, &text) else {
            *torn = false;
            return;
        };
        if done >= end {
            let whole = rest.iter().take_while(|line| {
                let is_whole = end + line.len() <= done;
                end += if is_whole { line.len() } else { 0 };
                is_whole
            });
            rest = &rest[whole.count()..];
            *torn = done > end;
        }
        lost.fetch_add(1, Ordering::Relaxed);
        rest = &rest[1..];
    }
}

/// How much of a text was written before it failed.
struct Torn(usize);

fn write_whole(out: &mut impl Write, text: &[u8]) -> Result<(), Torn> {
    let mut done = 0;
    while done < text.len() {
        match out.write(&text[done..]) {
            Ok(0) => return Err(Torn(done)),
            Ok(some) => done += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(Torn(done)),
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
