//! Finds out who listens on a TCP port or a socket: a Postgres, another program, or nobody. It speaks Postgres's protocol itself,
//! because `psql` and `pg_isready` may not be installed.

use std::time::Duration;

use kodo_store::socket;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

/// Long enough for a machine on another continent, short enough for a person.
const CONNECT: Duration = Duration::from_secs(3);
/// Postgres forks before it answers, which takes a while on a loaded machine; a silent stranger costs this much.
const ANSWER: Duration = Duration::from_secs(3);
/// Length 8, code 80877103: "may we speak TLS?"
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// `57P03`, `cannot_connect_now`: starting up, recovering or shutting down.
const CANNOT_CONNECT_NOW: &[u8] = b"57P03";

/// Who answers at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A Postgres server. It may still be starting up.
    Postgres,
    /// Something accepts connections and is no Postgres.
    Stranger,
    /// Nothing that can be reached.
    Nothing,
}

/// Asks who listens at `host:port`. Takes a few seconds at most.
pub(super) async fn probe(host: &str, port: u16) -> Probe {
    ask(host, port, ANSWER).await.0
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects by TCP, or to the socket in the folder that `host` names.
async fn connect(host: &str, port: u16) -> std::io::Result<Box<dyn Stream>> {
    Ok(match socket(host, port) {
        Some(path) => Box::new(UnixStream::connect(path).await?),
        None => Box::new(TcpStream::connect((host, port)).await?),
    })
}

/// The answer, and the connection if Postgres wants to go on without TLS.
async fn ask(host: &str, port: u16, patience: Duration) -> (Probe, Option<Box<dyn Stream>>) {
    let Ok(Ok(mut stream)) = timeout(CONNECT, connect(host, port)).await else {
        return (Probe::Nothing, None);
    };
    let mut answer = [0; 8];
    let answered = timeout(patience, async {
        stream.write_all(&SSL_REQUEST).await?;
        stream.read(&mut answer).await
    });
    let Ok(Ok(length)) = answered.await else {
        return (Probe::Stranger, None);
    };
    match &answer[..length] {
        b"N" => (Probe::Postgres, Some(stream)),
        // Exactly one byte: `SSH-2.0-…` begins with an S, too.
        b"S" => (Probe::Postgres, None),
        // An ErrorResponse (it could not fork): E and a length that is no text.
        [b'E', 0, 0, ..] => (Probe::Postgres, None),
        _ => (Probe::Stranger, None),
    }
}

/// Whether a Postgres takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Yes.
    Ready,
    /// It is starting up, recovering or shutting down.
    NotYet,
    /// There is none, or none any more.
    Gone,
}

/// Asks again until the Postgres at `host:port` is ready, has gone, or the deadline has passed.
pub(super) async fn wait_until_ready(
    host: &str,
    port: u16,
    user: &str,
    deadline: Duration,
) -> Readiness {
    let end = Instant::now() + deadline;
    loop {
        let readiness = readiness(host, port, user).await;
        if readiness != Readiness::NotYet || Instant::now() >= end {
            return readiness;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A Postgres says yes to [`SSL_REQUEST`] long before it takes connections.
async fn readiness(host: &str, port: u16, user: &str) -> Readiness {
    let mut stream = match ask(host, port, ANSWER).await {
        (Probe::Postgres, Some(stream)) => stream,
        // One that insists on TLS is somebody's real server; the client will see.
        (Probe::Postgres, None) => return Readiness::Ready,
        (Probe::Stranger | Probe::Nothing, _) => return Readiness::Gone,
    };
    let mut answer = [0; 256];
    let answered = timeout(ANSWER, async {
        stream.write_all(&startup_message(user)).await?;
        stream.read(&mut answer).await
    });
    let Ok(Ok(length)) = answered.await else {
        return Readiness::NotYet;
    };
    match &answer[..length] {
        // A request to authenticate is a yes. So is an error, except the one that means "later".
        [b'R', ..] => Readiness::Ready,
        error @ [b'E', ..] if !contains(error, CANNOT_CONNECT_NOW) => Readiness::Ready,
        _ => Readiness::NotYet,
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Protocol 3.0, this user, database `postgres`.
fn startup_message(user: &str) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for text in ["user", user, "database", "postgres", ""] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [length.to_be_bytes().as_slice(), &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A listener that answers every request with the next of `answers`.
    async fn server(answers: &'static [&'static [u8]]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                for answer in answers {
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer).await;
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn a_server_that_declines_or_accepts_tls_in_one_byte_is_postgres() {
        assert_eq!(
            probe("127.0.0.1", server(&[b"N"]).await).await,
            Probe::Postgres
        );
        assert_eq!(
            probe("127.0.0.1", server(&[b"S"]).await).await,
            Probe::Postgres
        );
    }

    #[tokio::test]
    async fn a_socket_in_a_folder_is_asked_as_a_port_is() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path().to_str().unwrap();
        assert_eq!(probe(host, 5432).await, Probe::Nothing);
        let listener = tokio::net::UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 8]).await.unwrap();
            stream.write_all(b"N").await.unwrap();
        });
        assert_eq!(probe(host, 5432).await, Probe::Postgres);
    }

    #[tokio::test]
    async fn a_server_too_busy_to_fork_is_postgres() {
        assert_eq!(
            probe("127.0.0.1", server(&[b"E\0\0\0\x20SFATAL"]).await).await,
            Probe::Postgres
        );
    }

    #[tokio::test]
    async fn ssh_http_and_one_that_hangs_up_are_strangers() {
        for answer in [
            b"SSH-2.0-x\r\n".as_slice(),
            b"HTTP/1.1 400 Bad Request",
            b"ERROR",
            b"",
        ] {
            let answers = Box::leak(Box::new([answer]));
            assert_eq!(
                probe("127.0.0.1", server(answers).await).await,
                Probe::Stranger
            );
        }
    }

    #[tokio::test]
    async fn one_that_never_answers_is_a_stranger() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let patience = Duration::from_millis(100);
        let (probe, connection) = ask("127.0.0.1", port, patience).await;
        assert_eq!(probe, Probe::Stranger);
        assert!(connection.is_none());
    }

    #[tokio::test]
    async fn a_closed_port_and_an_unknown_host_are_nothing() {
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        assert_eq!(probe("127.0.0.1", port).await, Probe::Nothing);
        assert_eq!(probe("no-such-host.invalid", port).await, Probe::Nothing);
    }

    #[tokio::test]
    async fn a_server_that_is_starting_up_does_not_accept_yet() {
        let starting = server(&[b"N", b"E\0\0\0\x20SFATAL\0C57P03\0"]).await;
        assert_eq!(
            readiness("127.0.0.1", starting, "postgres").await,
            Readiness::NotYet
        );
        let ready = server(&[b"N", b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256"]).await;
        assert_eq!(
            readiness("127.0.0.1", ready, "postgres").await,
            Readiness::Ready
        );
        let refusing = server(&[b"N", b"E\0\0\0\x20SFATAL\0C28000\0"]).await;
        assert_eq!(
            readiness("127.0.0.1", refusing, "postgres").await,
            Readiness::Ready
        );
    }

    #[tokio::test]
    async fn waiting_ends_at_the_deadline_and_at_once_when_the_server_goes() {
        let starting = server(&[b"N", b"E\0\0\0\x20SFATAL\0C57P03\0"]).await;
        let waited = wait_until_ready(
            "127.0.0.1",
            starting,
            "postgres",
            Duration::from_millis(120),
        )
        .await;
        assert_eq!(waited, Readiness::NotYet);
        let port = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let waited = wait_until_ready("127.0.0.1", port, "postgres", Duration::from_secs(60)).await;
        assert_eq!(waited, Readiness::Gone);
    }
}
