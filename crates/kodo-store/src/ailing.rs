//! Why a server that answers is of no use right now, for requests that got no connection in time.

use std::time::{Duration, Instant};

use crate::pool::Ailment;
use crate::{Cause, DatabaseConfig, Part, Store};

/// How long [`DatabaseConfig::why_unavailable`] asks, and for how long [`Store::why_unavailable`] repeats its answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl DatabaseConfig {
    /// Why a server that answers is of no use right now, in words, by connections of its own: a pool only knows that it got
    /// none in time. `None` if it is of use, or if it does not answer within a second.
    pub async fn why_unavailable(&self, part: Part) -> Option<String> {
        let trouble = tokio::time::timeout(ASK_TIMEOUT, self.trouble(part));
        let trouble = trouble.await.ok().flatten()?;
        (trouble.cause != Cause::Unreachable).then(|| trouble.to_string())
    }
}

impl Store {
    /// As [`DatabaseConfig::why_unavailable`], asked again after a second at the earliest.
    pub async fn why_unavailable(&self) -> Option<String> {
        let mut ailing = self.ailing.lock().await;
        if let Some(last) = &*ailing
            && last.asked.elapsed() < ASK_AGAIN
        {
            return last.why.clone();
        }
        let why = self.config.why_unavailable(Part::Product).await;
        *ailing = Some(Ailment {
            asked: Instant::now(),
            why: why.clone(),
        });
        why
    }
}
