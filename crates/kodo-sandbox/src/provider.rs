//! What providers that run programs have in common: how a job reaches the thread that runs it, and how that thread
//! exchanges frames and files with a process inside the sandbox. No part of the port.

mod entries;
mod frames;
mod outgoing;
mod received;
mod request;

pub use entries::{EntryHeader, EntryKind};
pub use frames::{
    CHUNK, FrameKind, Frames, frame, from_json, json_frame, receive, send, send_data,
};
pub use outgoing::OutgoingEntries;
pub use received::ReceivedEntries;
pub use request::{PendingResult, Request};
