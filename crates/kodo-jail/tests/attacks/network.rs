//! What a job must not reach over sockets: the machine, its loopback, anything beyond.

use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::*;

#[tokio::test]
async fn the_machines_loopback_is_not_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    held_by(&["connect", &address], &[NetNamespace]).await;
}

#[tokio::test]
async fn there_is_no_route_to_anywhere() {
    for address in ["169.254.169.254:80", "192.0.2.1:53"] {
        held(&["route", address]).await;
        let machine_has_one = UdpSocket::bind("0.0.0.0:0").and_then(|it| it.connect(address));
        if machine_has_one.is_ok() {
            not_held(&["route", address], &[NetNamespace]).await;
        }
    }
}

#[tokio::test]
async fn abstract_sockets_of_the_machine_are_not_reached() {
    let name = format!("kodo-attack-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    held_by(&["abstract-socket", &name], &[NetNamespace, Landlock]).await;
}

#[tokio::test]
async fn other_kinds_of_sockets_do_not_exist() {
    // vsock, crypto, and a netlink that configures firewalls.
    for words in [["40", "1", "0"], ["38", "5", "0"], ["16", "3", "12"]] {
        held(&["socket", words[0], words[1], words[2]]).await;
    }
    not_held(&["socket", "16", "3", "12"], &[Seccomp]).await;
    // Packets and raw IP, which the owner of a network namespace may have.
    held_by(&["socket", "17", "3", "0"], &[Seccomp, Capabilities]).await;
    held_by(&["socket", "2", "3", "1"], &[Seccomp, Capabilities]).await;
}
