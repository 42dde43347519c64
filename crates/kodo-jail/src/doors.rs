//! Sockets of the jail's network, handed out of it.
//!
//! A socket belongs to the network in which it was made, whoever holds it. So a program in a jail, whose network has
//! nothing but a loopback, can be talked with by the service alone, and no byte passes a process of ours in there: the
//! first process of the jail makes sockets and hands them over the conversation that it has with the service anyway.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::wire::{Kind, frame};

/// A socket that listens in this network.
pub(crate) fn listener(port: u16) -> io::Result<OwnedFd> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(OwnedFd::from)
}

/// A socket that can be connected in this network.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// Hands a socket to the service.
pub(crate) fn hand_out(control: &UnixStream, socket: BorrowedFd<'_>) -> io::Result<()> {
    let sockets = [socket];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = SendAncillaryBuffer::new(&mut space);
    attached.push(SendAncillaryMessage::ScmRights(&sockets));
    let bytes = frame(Kind::Door, &[]);
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

/// Reads what there is, and takes the sockets that came with it.
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
