//! `kodo workflow get ID`

use kodo_engine::{InspectError, Inspector};

use super::{cell, cell_time};
use crate::cli::Format;
use crate::output::json;

/// One workflow, a line a column.
pub(crate) async fn run(
    inspector: &mut Inspector,
    id: &str,
    format: Format,
) -> Result<String, InspectError> {
    let workflow = inspector.workflow(id).await?;
    if format == Format::Json {
        return Ok(json(&workflow));
    }
    let lines = [
        ("workflow", workflow.workflow_id.clone()),
        ("status", workflow.status.clone()),
        ("name", cell(workflow.name.as_deref())),
        ("executor", cell(workflow.executor_id.as_deref())),
        ("version", cell(workflow.application_version.as_deref())),
        ("attempts", workflow.recovery_attempts.to_string()),
        ("queue", cell(workflow.queue_name.as_deref())),
        ("created", workflow.created_at.to_string()),
        ("updated", workflow.updated_at.to_string()),
        ("completed", cell_time(workflow.completed_at.as_ref())),
        ("input", workflow.input.to_string()),
        ("output", workflow.output.to_string()),
        ("error", workflow.error.to_string()),
    ];
    Ok(lines
        .iter()
        .map(|(name, value)| format!("{name:<10}{value}\n"))
        .collect())
}
