//! One server for each test, on a port that the system chooses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kodo_store::content::{ObjectArtifacts, Place, S3Access};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The only bucket there is.
pub const BUCKET: &str = "kodo-artifacts";

/// Bound on a start. Reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Dropping it kills it; where this process dies first, the task does, by the id in its folder.
pub struct Server {
    child: Child,
    /// Everything of this server: what is in its buckets, and its process id.
    folder: PathBuf,
    port: u16,
}

/// What `test:s3` tells.
#[expect(clippy::disallowed_methods, reason = "what the task says")]
fn told(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run these tests by `bin/mise run test:s3`"))
}

pub fn key_id() -> String {
    told("KODO_TEST_S3_KEY_ID")
}

pub fn secret_key() -> String {
    told("KODO_TEST_S3_SECRET_KEY")
}

impl Server {
    /// A server with one empty bucket; `test` is a name that no other test uses.
    pub async fn start(test: &str) -> Self {
        let folder = Path::new(&told("KODO_TEST_S3_FOLDER")).join(test);
        fs::create_dir_all(folder.join("buckets").join(BUCKET)).unwrap();
        let (child, port) = spawn(&folder, 0).await;
        Self {
            child,
            folder,
            port,
        }
    }

    /// Kills it as a power failure would.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// The same one again, on its port and with what was stored.
    pub async fn again(&mut self) {
        let (child, port) = spawn(&self.folder, self.port).await;
        assert_eq!(port, self.port);
        self.child = child;
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps what is in the bucket: a file for each object, by its key.
    pub fn objects(&self) -> PathBuf {
        self.folder.join("buckets").join(BUCKET)
    }

    /// What a service is told of it.
    pub fn environment(&self, bucket: &str, secret_key: &str) -> Vec<(&'static str, String)> {
        vec![
            ("ARTIFACT_STORE", format!("s3://{bucket}/of/tests")),
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_ACCESS_KEY_ID", key_id()),
            ("AWS_SECRET_ACCESS_KEY", secret_key.to_owned()),
        ]
    }

    /// A store in it, with these credentials.
    pub fn store(&self, place: &str, key_id: String, secret_key: String) -> ObjectArtifacts {
        let access = S3Access {
            endpoint: Some(self.url()),
            region: "us-east-1".into(),
            access_key_id: key_id,
            secret_access_key: secret_key,
            session_token: None,
            lent: None,
        };
        ObjectArtifacts::new(Place::parse(place).unwrap(), Some(&access))
            .unwrap()
            .of_instance("0123abcd")
    }
}

async fn spawn(folder: &Path, port: u16) -> (Child, u16) {
    let mut child = Command::new(told("KODO_TEST_S3_SERVER"))
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--access-key", &key_id(), "--secret-key", &secret_key()])
        .arg(folder.join("buckets"))
        .env("RUST_LOG", "s3s_fs=info")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    fs::write(folder.join("pid"), child.id().unwrap().to_string()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let bound = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the server ended");
            if let Some((_, port)) = line.split_once("server is running at http://127.0.0.1:") {
                return port.trim().parse().unwrap();
            }
        }
    };
    let port = tokio::time::timeout(PATIENCE, bound).await.expect("a port");
    // Read on: a log that nobody reads would hold the server up.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, port)
}
