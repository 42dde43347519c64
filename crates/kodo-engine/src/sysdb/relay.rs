//! Lets the engine through a pooler that refuses `extra_float_digits`.
//!
//! The engine takes a URL, and its driver begins every connection with that setting, which no URL can leave out. PgBouncer
//! refuses what it does not know in the first message of a session, unless it is told to ignore it. So the engine connects
//! to a socket of this process, in a folder that only its user can enter, and the first message is passed on without the
//! setting; everything after it as it is. Not used unless a pooler has refused: nothing of it stands between the engine and
//! a server.

use std::io;
use std::path::Path;
use std::sync::Arc;

use kodo_store::{DatabaseConfig, SslMode, socket};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

/// The longest first message: a few names and values.
const LONGEST: u32 = 64 << 10;

/// The setting that is left out.
const SETTING: &[u8] = b"extra_float_digits";

/// The relay, for as long as it is held.
pub(crate) struct Relay {
    folder: TempDir,
    system: DatabaseConfig,
    _serving: AbortOnDropHandle<()>,
}

impl Relay {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the connections have to be encrypted, which this does not do; or if there is no place for a socket.
    pub(crate) fn start(system: &DatabaseConfig) -> io::Result<Self> {
        if !matches!(
            system.ssl_mode,
            SslMode::Disable | SslMode::Allow | SslMode::Prefer
        ) {
            let what = format!("DB_SSLMODE={} asks for encryption", system.ssl_mode);
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        // Only its owner can enter a temporary folder.
        let folder = tempfile::Builder::new().prefix("kodo-relay-").tempdir()?;
        let listener = UnixListener::bind(place(folder.path(), system.port))?;
        let target = Arc::new(system.clone());
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = Arc::clone(&target);
                // That a connection ended is for its two ends to notice.
                tokio::spawn(async move { pass(client, &target).await });
            }
        });
        Ok(Self {
            folder,
            system: system.clone(),
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// The database as the engine reaches it.
    pub(crate) fn database(&self) -> DatabaseConfig {
        DatabaseConfig {
            host: self.folder.path().display().to_string(),
            ssl_mode: SslMode::Disable,
            ..self.system.clone()
        }
    }
}

fn place(folder: &Path, port: u16) -> std::path::PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

async fn pass(mut client: UnixStream, target: &DatabaseConfig) -> io::Result<()> {
    let length = client.read_u32().await?;
    if !(8..=LONGEST).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length as usize - 4];
    client.read_exact(&mut message).await?;
    let mut server = connect(target).await?;
    let message = without_setting(&message);
    server.write_u32(message.len() as u32 + 4).await?;
    server.write_all(&message).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(target: &DatabaseConfig) -> io::Result<Box<dyn Stream>> {
    Ok(match socket(&target.host, target.port) {
        Some(path) => Box::new(UnixStream::connect(path).await?),
        None => {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
    })
}

/// A first message without the setting: four bytes of version, then names and values, each ended by a zero, and one more.
fn without_setting(message: &[u8]) -> Vec<u8> {
    let (version, rest) = message.split_at(4.min(message.len()));
    let mut kept = version.to_vec();
    let mut words = rest.split(|byte| *byte == 0);
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name.is_empty() {
            break;
        }
        if name != SETTING {
            for word in [name, value] {
                kept.extend_from_slice(word);
                kept.push(0);
            }
        }
    }
    kept.push(0);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_setting_is_left_out() {
        let message =
            b"\0\x03\0\0user\0u\0extra_float_digits\x002\0database\0\0application_name\0a\0\0";
        assert_eq!(
            without_setting(message),
            b"\0\x03\0\0user\0u\0database\0\0application_name\0a\0\0"
        );
        assert_eq!(without_setting(b"\0\x03\0\0\0"), b"\0\x03\0\0\0");
    }
}
