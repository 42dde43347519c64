//! A witness between a service and its Postgres: counts what goes over the wire.
//!
//! `pg_stat_statements` must be loaded when a server starts, which is not ours to ask for, and the counters of
//! `pg_stat_database` come up to ten seconds late. The protocol tells exactly: an Execute or a Query is a
//! statement, and a transaction is over when the server is ready again outside of one.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kodo_store::DatabaseConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Codes in place of a protocol version: the client asks for TLS, or for GSS encryption.
const WISHES: [[u8; 4]; 2] = [80_877_103_u32.to_be_bytes(), 80_877_104_u32.to_be_bytes()];

/// What went over the wire up to now.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    /// Statements executed, `BEGIN` and `COMMIT` included.
    pub(crate) statements: u64,
    /// Transactions, those of a single statement included.
    pub(crate) transactions: u64,
    /// How often each statement was executed, by its text.
    pub(crate) texts: BTreeMap<String, u64>,
}

/// The proxy. Dropping it takes no new connection; those that are there live on until they end.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens, on loopback.
    pub(crate) port: u16,
    counts: Arc<Mutex<Counts>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of a server.
    pub(crate) async fn start(server: &DatabaseConfig) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let counts = Arc::new(Mutex::new(Counts::default()));
        let (server, counting) = ((server.host.clone(), server.port), Arc::clone(&counts));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, server.clone(), Arc::clone(&counting)));
            }
        });
        Ok(Self {
            port,
            counts,
            accepting,
        })
    }

    /// What went over the wire up to now.
    pub(crate) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock(counts: &Mutex<Counts>) -> std::sync::MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries one connection until either end closes it.
async fn connect(
    mut client: TcpStream,
    server: (String, u16),
    counts: Arc<Mutex<Counts>>,
) -> io::Result<()> {
    let server = TcpStream::connect((server.0.as_str(), server.1)).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let startup = startup(&mut client).await?;
    let (from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    to_server.write_all(&startup).await?;
    tokio::select! {
        done = ask(from_client, to_server, &counts) => done,
        done = answer(from_server, to_client, &counts) => done,
    }
}

/// The client's first message that is not a wish for encryption, which would blind the witness.
async fn startup(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    loop {
        let length = client.read_u32().await?;
        let mut message = length.to_be_bytes().to_vec();
        read_rest(client, length, &mut message).await?;
        if !WISHES.iter().any(|wish| message[4..].starts_with(wish)) {
            return Ok(message);
        }
        client.write_all(b"N").await?;
    }
}

/// Appends what a message has after its length, which counts itself.
async fn read_rest<R: AsyncReadExt + Unpin>(
    reader: &mut R,
    length: u32,
    message: &mut Vec<u8>,
) -> io::Result<()> {
    let rest = length.checked_sub(4).ok_or(io::ErrorKind::InvalidData)?;
    let read = reader.take(rest.into()).read_to_end(message).await?;
    if read < rest as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// A message: a byte that says of what kind it is, the length, the rest.
async fn message(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let kind = reader.read_u8().await?;
    let length = reader.read_u32().await?;
    let mut message = vec![kind];
    message.extend(length.to_be_bytes());
    read_rest(reader, length, &mut message).await?;
    Ok(message)
}

async fn ask(
    client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    counts: &Mutex<Counts>,
) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let (mut prepared, mut bound) = (HashMap::new(), HashMap::new());
    loop {
        let message = message(&mut client).await?;
        let mut texts = message[5..]
            .split(|byte| *byte == 0)
            .map(|text| String::from_utf8_lossy(text).into_owned());
        let mut text = || texts.next().unwrap_or_default();
        let executed = match message[0] {
            // Parse: the statement's name, its text.
            b'P' => {
                prepared.insert(text(), text());
                None
            }
            // Bind: the portal's name, the statement's.
            b'B' => {
                let portal = text();
                bound.insert(portal, prepared.get(&text()).cloned().unwrap_or_default());
                None
            }
            // Execute: the portal's name.
            b'E' => Some(bound.get(&text()).cloned().unwrap_or_default()),
            // Query: the text.
            b'Q' => Some(text()),
            _ => None,
        };
        if let Some(executed) = executed {
            let mut counts = lock(counts);
            counts.statements += 1;
            *counts.texts.entry(executed).or_default() += 1;
        }
        server.write_all(&message).await?;
    }
}

async fn answer(
    server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    counts: &Mutex<Counts>,
) -> io::Result<()> {
    let mut server = BufReader::new(server);
    let mut completed = false;
    loop {
        let message = message(&mut server).await?;
        match message.as_slice() {
            // CommandComplete. A mere Sync (sqlx's ping, or the end of a Parse) has none.
            [b'C', ..] => completed = true,
            // ReadyForQuery, idle.
            [b'Z', .., b'I'] if completed => {
                completed = false;
                lock(counts).transactions += 1;
            }
            _ => {}
        }
        client.write_all(&message).await?;
    }
}
