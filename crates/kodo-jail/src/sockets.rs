//! Sockets of the jail's network, sent to the process that started the jail.
//!
//! A socket belongs to the network namespace in which it was made, whichever process holds it. So the jail's init makes
//! sockets and sends them over its control channel (`SCM_RIGHTS`): the process that started the jail, and no other, can
//! talk with a program whose network is a loopback, and no proxy is needed inside.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use kodo_sandbox::provider::frame;

use crate::wire::Kind;

/// A socket that listens in this network.
pub(crate) fn listener(port: u16) -> io::Result<OwnedFd> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(OwnedFd::from)
}

/// A socket that can be connected in this network.
pub(crate) fn unconnected() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Sends a socket, attached to a frame.
pub(crate) fn send(control: &UnixStream, socket: BorrowedFd<'_>) -> io::Result<()> {
    let sockets = [socket];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = SendAncillaryBuffer::new(&mut space);
    attached.push(SendAncillaryMessage::ScmRights(&sockets));
    let bytes = frame(Kind::Socket, &[]);
    let sent = rustix::net::sendmsg(
        control,
        &[IoSlice::new(&bytes)],
        &mut attached,
        SendFlags::NOSIGNAL,
    )?;
    // A frame this short is sent as a whole or not at all.
    if sent != bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// Reads what is there, and adds the sockets that came with it to `sockets`.
pub(crate) fn receive(
    control: &UnixStream,
    buffer: &mut [u8],
    sockets: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut attached = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        control.as_fd(),
        &mut [IoSliceMut::new(buffer)],
        &mut attached,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    for message in attached.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            sockets.extend(came);
        }
    }
    Ok(received.bytes)
}
