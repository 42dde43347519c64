//! A fake Postgres that answers every query with one row, `true`: a route finds that an id exists, so that what it does
//! with a body is tested without a database. It records the statements that it is sent.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A fake database on a port of its own, for as long as the test's runtime lives.
pub(crate) struct FakeDatabase {
    pub(crate) port: u16,
    statements: Arc<Mutex<Vec<String>>>,
}

impl FakeDatabase {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let statements = Arc::new(Mutex::new(Vec::new()));
        let kept = statements.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // A client that disconnects ends its session; that is no error.
                tokio::spawn(session(socket, kept.clone()));
            }
        });
        Self { port, statements }
    }

    /// The prepared statements that are not `SELECT`.
    pub(crate) fn writes(&self) -> Vec<String> {
        let all = self.statements.lock().unwrap();
        all.iter()
            .filter(|text| !text.starts_with("SELECT"))
            .cloned()
            .collect()
    }
}

const TYPE_BOOL: u32 = 16;
const TYPE_TEXT: u32 = 25;

async fn session(mut socket: TcpStream, statements: Arc<Mutex<Vec<String>>>) -> Option<()> {
    // The first messages have no tag: an optional request for TLS, then the startup.
    loop {
        let body = body(&mut socket).await?;
        if body.starts_with(&80_877_103_u32.to_be_bytes()) {
            socket.write_all(b"N").await.ok()?;
        } else {
            break;
        }
    }
    let mut hello = message(b'R', &0_u32.to_be_bytes());
    hello.extend(message(b'S', b"server_version\x0015.0\0"));
    hello.extend(message(b'S', b"client_encoding\0UTF8\0"));
    hello.extend(message(b'Z', b"I"));
    socket.write_all(&hello).await.ok()?;
    loop {
        let tag = socket.read_u8().await.ok()?;
        let body = body(&mut socket).await?;
        let answer = match tag {
            b'P' => {
                let mut texts = body.split(|&byte| byte == 0).skip(1);
                let text = String::from_utf8_lossy(texts.next()?).into_owned();
                statements.lock().ok()?.push(text);
                message(b'1', b"")
            }
            // One parameter and one column, as in a query whether an id exists.
            b'D' => {
                let mut types = 1_u16.to_be_bytes().to_vec();
                types.extend(TYPE_TEXT.to_be_bytes());
                let mut row = 1_u16.to_be_bytes().to_vec();
                row.extend(b"exists\0\0\0\0\0\0\0");
                row.extend(TYPE_BOOL.to_be_bytes());
                row.extend([0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1]);
                [message(b't', &types), message(b'T', &row)].concat()
            }
            b'B' => message(b'2', b""),
            // `true`, in the binary format.
            b'E' => [
                message(b'D', &[0, 1, 0, 0, 0, 1, 1]),
                message(b'C', b"SELECT 1\0"),
            ]
            .concat(),
            b'C' => message(b'3', b""),
            b'Q' => message(b'C', b"SET\0"),
            b'X' => return None,
            _ => Vec::new(),
        };
        socket.write_all(&answer).await.ok()?;
        if matches!(tag, b'S' | b'Q') {
            socket.write_all(&message(b'Z', b"I")).await.ok()?;
        }
    }
}

/// The body of a message, which its length precedes; the length includes its own four bytes.
async fn body(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let length = socket.read_u32().await.ok()?.checked_sub(4)?;
    let mut body = vec![0; usize::try_from(length).ok()?];
    socket.read_exact(&mut body).await.ok()?;
    Some(body)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}
