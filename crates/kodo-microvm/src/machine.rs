//! One machine: it boots, waits for a request, carries it out, and ends.
//!
//! Each has a thread of its own, and not one of the runtime's: the emulator dies with the thread that started it.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use kodo_sandbox::SandboxError;
use kodo_sandbox::provider::Request;

use crate::channel::{Channel, End};
use crate::outcome::{Output, enforced};
use crate::plan::Plan;

/// Where a machine finds its one request.
type Slot = Arc<Mutex<Option<Box<Request>>>>;

/// A machine that has come up and waits for its request. Dropping it ends it.
pub(crate) struct Machine {
    slot: Slot,
    wake: UnixStream,
    booted_in: Duration,
}

impl Machine {
    /// Boots one, and returns when it has come up.
    pub(crate) fn boot(plan: &Plan) -> Result<Self, SandboxError> {
        let plan = plan.clone();
        let (slot, (wake, woken)) = (
            Slot::default(),
            UnixStream::pair().map_err(broken("no socket"))?,
        );
        let (tell, told) = mpsc::channel();
        let theirs = Arc::clone(&slot);
        let began = Instant::now();
        thread::Builder::new()
            .name("kodo-microvm".to_owned())
            .spawn(move || live(&plan, &theirs, &woken, &tell))
            .map_err(broken("no thread"))?;
        let up = told.recv().unwrap_or_else(|_| {
            Err(SandboxError::Unavailable {
                reason: "the thread of the machine ended without an answer".to_owned(),
            })
        });
        up.map(|()| Self {
            slot,
            wake,
            booted_in: began.elapsed(),
        })
    }

    pub(crate) fn booted_in(&self) -> Duration {
        self.booted_in
    }

    /// Hands it its one request. Returns the request if the machine has ended meanwhile.
    pub(crate) fn hand_over(mut self, request: Box<Request>) -> Result<(), Box<Request>> {
        *lock(&self.slot) = Some(request);
        if self.wake.write_all(&[1]).is_ok() {
            return Ok(());
        }
        match lock(&self.slot).take() {
            Some(request) => Err(request),
            None => Ok(()),
        }
    }
}

fn lock(slot: &Slot) -> std::sync::MutexGuard<'_, Option<Box<Request>>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken(what: &str) -> impl Fn(io::Error) -> SandboxError + '_ {
    move |error| SandboxError::Unavailable {
        reason: format!("{what}: {error}"),
    }
}

/// The whole life of a machine.
fn live(
    plan: &Plan,
    slot: &Slot,
    woken: &UnixStream,
    tell: &mpsc::Sender<Result<(), SandboxError>>,
) {
    let up = Channel::open(plan)
        .map_err(broken("start the emulator"))
        .and_then(|mut channel| match channel.come_up(plan, woken) {
            Ok(ready) => Ok((channel, ready)),
            Err(error) => Err(channel.end(&error)),
        });
    let (mut channel, ready) = match up {
        Ok(up) => up,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    // Fails if the caller has given up; then the machine is woken without a request.
    let _ = tell.send(Ok(()));
    if channel.idle(woken).is_err() {
        // It ended while it waited, or was dropped. A request that came at the same moment is answered.
        let _ = woken.shutdown(std::net::Shutdown::Both);
        channel.stop();
        if let Some(request) = lock(slot).take() {
            let reason = "the machine ended before its job began".to_owned();
            let _ = request
                .answer
                .send(Err(SandboxError::Unavailable { reason }));
        }
        return;
    }
    let Some(request) = lock(slot).take() else {
        channel.stop();
        return;
    };
    let confined = enforced(plan.acceleration, &ready, plan.memory_mib);
    let began = Instant::now();
    let mut output = Output::new(&request.spec);
    let deadline = began + request.spec.limits.wall + plan.acceleration.grace();
    let result = match channel.carry_out(&request.spec, &request.abandoned, &mut output, deadline) {
        Ok(End::Said) => output.result(confined),
        Ok(End::Late) => Ok(output.late(began.elapsed(), confined)),
        Ok(End::Abandoned) => Err(SandboxError::Unavailable {
            reason: "nobody waits for the job any more".to_owned(),
        }),
        Err(error) => {
            let _ = request.answer.send(Err(channel.end(&error)));
            return;
        }
    };
    // Ended before the result is sent, so that nothing of the job is left by then.
    channel.stop();
    let _ = request.answer.send(result);
}
