//! `kodo workflow list`

use kodo_engine::{InspectError, Inspector};

use super::{cell, cell_time};
use crate::cli::Format;
use crate::output::json;
use crate::table;

/// The newest workflows, newest first.
pub(crate) async fn run(
    inspector: &mut Inspector,
    limit: i64,
    format: Format,
) -> Result<String, InspectError> {
    let workflows = inspector.workflows(limit).await?;
    if format == Format::Json {
        return Ok(json(&workflows));
    }
    if workflows.is_empty() {
        return Ok("no workflows yet\n".to_owned());
    }
    let rows: Vec<Vec<String>> = workflows
        .iter()
        .map(|workflow| {
            vec![
                workflow.workflow_id.clone(),
                workflow.status.clone(),
                cell(workflow.name.as_deref()),
                cell(workflow.executor_id.as_deref()),
                workflow.recovery_attempts.to_string(),
                workflow.created_at.to_string(),
                cell_time(Some(&workflow.updated_at)),
            ]
        })
        .collect();
    Ok(table::render(
        &[
            "WORKFLOW", "STATUS", "NAME", "EXECUTOR", "ATTEMPTS", "CREATED", "UPDATED",
        ],
        &rows,
    ))
}
