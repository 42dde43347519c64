//! What stands between a service and Postgres and does not keep what a service relies on, as PgBouncer does: sessions that
//! are handed round among clients, and first messages that are refused.

use std::sync::Arc;

use crate::test_databases::TestDatabases;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::program::{Ended, kodo};
use crate::support::{DEMO_INTENT, World, program, server};

/// What a pooler does.
#[derive(Clone, Copy)]
enum Kind {
    /// Every client's statements go to one session of the server, whichever it is.
    HandsRound,
    /// Each client has a session of its own, and may not begin it with a setting that the pooler does not know.
    RefusesSettings,
    /// The first few clients are told that a login of before has failed.
    Remembers,
}

/// How many clients are told so.
const REFUSED: usize = 5;

/// A pooler; returns its port. It speaks no TLS.
async fn pooler(kind: Kind) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let shared: Arc<Mutex<Option<TcpStream>>> = Arc::default();
    tokio::spawn(async move {
        let mut refused = 0;
        while let Ok((mut client, _)) = listener.accept().await {
            if matches!(kind, Kind::Remembers) && refused < REFUSED {
                refused += 1;
                tokio::spawn(async move {
                    let _ = client.read(&mut [0; 8192]).await;
                    let said = "server login has been failing, cached error: database does not exist (server_login_retry)";
                    let _ = client.write_all(&fatal(said)).await;
                });
                continue;
            }
            tokio::spawn(serve(client, kind, Arc::clone(&shared)));
        }
    });
    port
}

/// Serves a client until it or the server is gone.
async fn serve(
    mut client: TcpStream,
    kind: Kind,
    shared: Arc<Mutex<Option<TcpStream>>>,
) -> std::io::Result<()> {
    let mut startup = vec![0; 8192];
    let length = client.read(&mut startup).await?;
    startup.truncate(length);
    let mut own = TcpStream::connect((server().host.as_str(), server().port)).await?;
    if matches!(kind, Kind::RefusesSettings) {
        let unknown = ["extra_float_digits", "options"];
        let text = String::from_utf8_lossy(&startup).into_owned();
        if let Some(name) = unknown
            .iter()
            .find(|name| text.contains(&format!("\0{name}\0")))
        {
            return client.write_all(&refusal(name)).await;
        }
        own.write_all(&startup).await?;
        copy_bidirectional(&mut client, &mut own).await?;
        return Ok(());
    }
    own.write_all(&startup).await?;
    if matches!(kind, Kind::Remembers) {
        copy_bidirectional(&mut client, &mut own).await?;
        return Ok(());
    }
    let (mut sent, mut told) = client.split();
    // Until the server is ready for a first statement, the client has this session.
    let mut answer = [0; 8192];
    loop {
        tokio::select! {
            ready = answered(&mut own, &mut told) => {
                if ready? { break }
            }
            length = sent.read(&mut answer) => {
                let length = length?;
                if length == 0 { return Ok(()) }
                own.write_all(&answer[..length]).await?;
            }
        }
    }
    shared.lock().await.get_or_insert(own);
    loop {
        let length = sent.read(&mut answer).await?;
        // Its end ends no session of the server.
        if length == 0 || answer[0] == b'X' {
            return Ok(());
        }
        let mut session = shared.lock().await;
        let Some(session) = session.as_mut() else {
            return Ok(());
        };
        session.write_all(&answer[..length]).await?;
        while !answered(session, &mut told).await? {}
    }
}

/// Passes one message of the server on. Returns whether it says that the server is ready for the next statement.
async fn answered(
    session: &mut TcpStream,
    client: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<bool> {
    // Not lost if it is cancelled: nothing is read before all of it is there.
    let mut head = [0; 5];
    loop {
        session.readable().await?;
        let there = session.peek(&mut head).await?;
        if there == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if there == head.len() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut message = vec![0; 1 + length as usize];
    session.read_exact(&mut message).await?;
    client.write_all(&message).await?;
    Ok(head[0] == b'Z')
}

/// PgBouncer's words.
fn refusal(name: &str) -> Vec<u8> {
    fatal(&format!("unsupported startup parameter: {name}"))
}

fn fatal(message: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, text) in [
        ('S', "FATAL".to_owned()),
        ('V', "FATAL".to_owned()),
        ('C', "08P01".to_owned()),
        ('M', message.to_owned()),
    ] {
        body.extend_from_slice(format!("{field}{text}\0").as_bytes());
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [b"E".as_slice(), &length.to_be_bytes(), &body].concat()
}

async fn served_through(port: u16, databases: &TestDatabases) -> Ended {
    let environment = databases.databases.environment();
    let port = port.to_string();
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain([
            ("DB_PORT", port.as_str()),
            ("DB_HOST", "127.0.0.1"),
            ("DB_SSLMODE", "disable"),
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
        ])
        .collect();
    kodo(&["serve"], &environment).await
}

#[tokio::test]
async fn a_pooler_that_hands_sessions_round_is_refused_before_anything_is_accepted() {
    let databases = TestDatabases::two(&program(), &server(), "pooler_round").await;
    let databases = databases.expect("databases");
    let ended = served_through(pooler(Kind::HandsRound).await, &databases).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(
        last.contains("a connection pooler answers at 127.0.0.1:")
            && last.contains("pool_mode = session"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains("ready: POST"), "{ended:?}");
}

/// PgBouncer in session mode, as it comes.
#[tokio::test]
async fn a_pooler_that_keeps_sessions_and_refuses_settings_serves_as_the_server_does() {
    let port = pooler(Kind::RefusesSettings).await;
    let world = World::apart("pooler_settings", |options| {
        options
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", port)
            .env("DB_SSLMODE", "disable")
    })
    .await;
    let intent = world.intent(DEMO_INTENT).await;
    for _ in 0..3 {
        let run = world.run(&intent).await;
        assert_eq!(world.ended(&run).await["status"], "succeeded");
    }
}

/// PgBouncer remembers a failed login for 15 s, also that of a database which was made meanwhile.
#[tokio::test]
async fn a_failed_login_that_a_pooler_remembers_is_named_and_waited_out() {
    let port = pooler(Kind::Remembers).await;
    let world = World::apart("pooler_remembers", |options| {
        options
            .env("DB_HOST", "127.0.0.1")
            .env("DB_PORT", port)
            .env("DB_SSLMODE", "disable")
    })
    .await;
    let log = world.service.log();
    assert!(
        log.contains("PgBouncer remembers that a login failed"),
        "{log}"
    );
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}
