//! Sits between a service and Postgres and notes every statement that passes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Codes of the protocol's first packet that ask for encryption; the answer `N` is "none here".
const ASKS_FOR_ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];

/// A statement that was executed.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Who sent it: the connection's `application_name`.
    pub application: String,
    /// Its text, blanks collapsed.
    pub sql: String,
    /// Its parameters, as they were sent; texts are readable in there.
    parameters: Vec<u8>,
}

impl Statement {
    /// Whether one of its parameters contains this text.
    pub fn names(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.parameters.windows(text.len()).any(|part| part == text)
    }
}

/// A listening tap. It ends with the test's runtime.
pub struct Tap {
    pub port: u16,
    statements: Arc<Mutex<Vec<Statement>>>,
}

impl Tap {
    /// A tap on the server at this port.
    pub async fn on(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let statements = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&statements);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server, Arc::clone(&notes)));
            }
        });
        Self { port, statements }
    }

    /// Every statement so far.
    pub fn statements(&self) -> Vec<Statement> {
        self.statements.lock().unwrap().clone()
    }

    /// Those of these applications whose text contains this.
    pub fn count(&self, application: &str, part: &str) -> usize {
        let statements = self.statements.lock().unwrap();
        statements
            .iter()
            .filter(|statement| {
                statement.application == application && statement.sql.contains(part)
            })
            .count()
    }
}

/// One connection. However it ends, both sides learn of it by the sockets' end.
async fn pass(client: TcpStream, server: u16, notes: Arc<Mutex<Vec<Statement>>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let Some(application) = start(&mut from_client, &mut to_client, &mut to_server).await else {
        return;
    };
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut listener = Listener {
        application,
        texts: HashMap::new(),
        bound: None,
        notes,
    };
    while let Some((kind, packet)) = packet(&mut from_client).await {
        listener.hear(kind, &packet[5..]);
        if to_server.write_all(&packet).await.is_err() {
            break;
        }
    }
    drop(to_server);
    let _ = back.await;
}

/// Forwards the first packet and returns the `application_name` in it.
async fn start(
    from_client: &mut OwnedReadHalf,
    to_client: &mut OwnedWriteHalf,
    to_server: &mut OwnedWriteHalf,
) -> Option<String> {
    loop {
        let length = from_client.read_u32().await.ok()?;
        let mut rest = vec![0; usize::try_from(length).ok()?.checked_sub(4)?];
        from_client.read_exact(&mut rest).await.ok()?;
        let code = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
        if ASKS_FOR_ENCRYPTION.contains(&code) {
            to_client.write_all(b"N").await.ok()?;
            continue;
        }
        to_server.write_u32(length).await.ok()?;
        to_server.write_all(&rest).await.ok()?;
        let texts: Vec<String> = rest[4..].split(|byte| *byte == 0).map(lossy).collect();
        let name = texts.iter().position(|text| text == "application_name");
        return Some(
            name.and_then(|at| texts.get(at + 1))
                .cloned()
                .unwrap_or_default(),
        );
    }
}

/// The next packet of a started connection, whole, and its kind.
async fn packet(from: &mut OwnedReadHalf) -> Option<(u8, Vec<u8>)> {
    let kind = from.read_u8().await.ok()?;
    let length = from.read_u32().await.ok()?;
    let mut packet = vec![kind];
    packet.extend(length.to_be_bytes());
    packet.resize(usize::try_from(length).ok()? + 1, 0);
    from.read_exact(&mut packet[5..]).await.ok()?;
    Some((kind, packet))
}

struct Listener {
    application: String,
    /// Texts of prepared statements, by name.
    texts: HashMap<String, String>,
    /// What the unnamed portal would execute, with its parameters.
    bound: Option<(String, Vec<u8>)>,
    notes: Arc<Mutex<Vec<Statement>>>,
}

impl Listener {
    fn hear(&mut self, kind: u8, body: &[u8]) {
        let mut texts = body.split(|byte| *byte == 0).map(lossy);
        let mut text = || texts.next().unwrap_or_default();
        match kind {
            // Parse: name, text.
            b'P' => {
                let name = text();
                self.texts.insert(name, text());
            }
            // Bind: portal, name, parameters.
            b'B' => {
                let (portal, name) = (text(), text());
                let parameters = body[portal.len() + name.len() + 2..].to_vec();
                let sql = self.texts.get(&name).cloned().unwrap_or_default();
                self.bound = Some((sql, parameters));
            }
            // Execute.
            b'E' => {
                if let Some((sql, parameters)) = self.bound.clone() {
                    self.note(&sql, parameters);
                }
            }
            // Simple query.
            b'Q' => {
                let sql = text();
                self.note(&sql, Vec::new());
            }
            _ => {}
        }
    }

    fn note(&self, sql: &str, parameters: Vec<u8>) {
        let words: Vec<&str> = sql.split_whitespace().collect();
        self.notes.lock().unwrap().push(Statement {
            application: self.application.clone(),
            sql: words.join(" "),
            parameters,
        });
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
