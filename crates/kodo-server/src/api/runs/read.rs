//! `GET /runs/:id`: a run, validated at egress.

use axum::http::StatusCode;
use axum::response::Response;
use kodo_contract::{RunId, StoredOutput, decode};
use kodo_store::StoredRun;

use crate::api::egress;
use crate::error::ApiError;
use crate::extract::params::{Id, RunKey};
use crate::extract::service::Migrated;
use crate::route::{Access, Operation};

/// From this many bytes of JSON on, a view is put together on a thread of its own, and few at a time: reading, validating and
/// writing it takes some ten times its length in memory. Smaller ones would wait longer for such a thread than they take.
const LARGE: usize = 1 << 20;

pub(crate) fn operation() -> Operation {
    Operation::get("/runs/{id}", Access::Token, handler).answers(StatusCode::OK, "the run")
}

async fn handler(Migrated(app): Migrated, Id(key): Id<RunKey>) -> Result<Response, ApiError> {
    let id = key.run(&app).await?;
    let reading = async {
        let run = app.store().stored_run(&id).await?;
        let run = run.ok_or(ApiError::RunNotFound)?;
        let turn = match run.size() < LARGE {
            true => None,
            false => Some(app.turn_for_large_view().await?),
        };
        Ok::<_, ApiError>((run, turn))
    };
    let (run, turn) = app.in_time(reading).await?;
    let Some(turn) = turn else {
        return answer(run, id);
    };
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        answer(run, id)
    });
    work.await
        .map_err(|error| ApiError::Internal(error.to_string()))?
}

fn answer(run: StoredRun, id: RunId) -> Result<Response, ApiError> {
    let view = run.view()?;
    // The schema of the view says nothing of outputs, of which each kind of step has its own.
    for step in view
        .steps
        .iter()
        .filter(|it| it.output.get("stored").is_some())
    {
        decode::<StoredOutput>(&step.output).map_err(|invalid| {
            ApiError::Internal(format!("egress: step {}: {invalid}", step.step_id))
        })?;
    }
    egress::answer(&view, id)
}
