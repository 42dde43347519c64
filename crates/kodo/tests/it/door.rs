//! A door between the service and Postgres that a test can shut, so that the server itself is left alone.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the door stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Bytes pass.
    Open,
    /// Every connection is closed at once: what a stopped server looks like.
    Shut,
    /// Connections are taken and nothing passes: what a network that swallows packets looks like.
    Silent,
}

/// The door. Dropping it lets every connection go.
///
/// On a thread of its own: a test blocks its runtime while it drops its databases, and the server waits with
/// that until it has seen the end of every connection that a killed service was about to make.
pub struct Door {
    pub port: u16,
    stand: watch::Sender<Stand>,
}

impl Door {
    /// A door before the server at this address.
    pub fn before(host: &str, port: u16, stand: Stand) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let own = listener.local_addr().expect("an address").port();
        let (sender, receiver) = watch::channel(stand);
        let host = host.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            // What still passes when this returns ends with the runtime.
            runtime.block_on(serve(listener, &host, port, receiver));
        });
        Self {
            port: own,
            stand: sender,
        }
    }

    /// Opens or shuts it, for connections that are there too.
    pub fn set(&self, stand: Stand) {
        self.stand.send_replace(stand);
    }
}

/// Takes connections until the door is dropped.
async fn serve(
    listener: std::net::TcpListener,
    host: &str,
    port: u16,
    stand: watch::Receiver<Stand>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    let mut watched = stand.clone();
    let dropped = async { while watched.changed().await.is_ok() {} };
    let taking = async {
        loop {
            let (client, _) = listener.accept().await.expect("a connection");
            tokio::spawn(pass(client, host.to_owned(), port, stand.clone()));
        }
    };
    tokio::select! {
        () = taking => {}
        () = dropped => {}
    }
}

async fn pass(mut client: TcpStream, host: String, port: u16, mut stand: watch::Receiver<Stand>) {
    if *stand.borrow() == Stand::Open {
        let Ok(mut server) = TcpStream::connect((host.as_str(), port)).await else {
            return;
        };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            moved = stand.wait_for(|stand| *stand != Stand::Open) => if moved.is_err() { return },
        }
    }
    // What was under way is lost: a silenced connection ends when the door moves, and is never resumed.
    let _ = stand.wait_for(|stand| *stand != Stand::Silent).await;
}
