//! Translates a job's result to a tool's result.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kodo_contract::{ToolFile, ToolResult};
use serde_json::{Map, Value, json};

use crate::JobResult;

/// Where a result's report says which limit ended the job, if one did.
pub const LIMIT: &str = "limit";

/// What a step records of a job.
#[must_use]
pub fn result_of(result: &JobResult) -> ToolResult {
    ToolResult {
        provider: result.provider.to_owned(),
        exit_code: result.exit_code(),
        stdout: result.stdout.text(),
        stderr: result.stderr.text(),
        files: result
            .files
            .iter()
            .map(|file| tool_file(&file.name, &file.content, &file.sha256, file.executable))
            .collect(),
        reason: result.ended.reason().map(str::to_owned),
        report: Some(report_of(result)),
        workspace: None,
    }
}

/// A file as text if it is text that a database can store, otherwise as base64. The hash is always that of its bytes.
#[must_use]
pub fn tool_file(name: &str, content: &[u8], sha256: &str, executable: bool) -> ToolFile {
    let text = std::str::from_utf8(content)
        .ok()
        .filter(|text| !text.contains('\0'));
    ToolFile {
        name: name.replace('\0', "\u{fffd}"),
        content: Some(text.map_or_else(|| STANDARD.encode(content), str::to_owned)),
        sha256: sha256.to_owned(),
        size: Some(content.len() as u64),
        encoding: text.is_none().then(|| "base64".to_owned()),
        executable: executable.then_some(true),
        stored: None,
    }
}

/// The limits, how they were enforced, what was used, and what is missing.
fn report_of(result: &JobResult) -> Map<String, Value> {
    let usage = &result.usage;
    let milliseconds = |it: std::time::Duration| it.as_secs_f64() * 1000.0;
    let whole = |it: std::time::Duration| milliseconds(it).round() as u64;
    let report = json!({
        "stdout": {"bytes": result.stdout.total(), "truncated": result.stdout.truncated()},
        "stderr": {"bytes": result.stderr.total(), "truncated": result.stderr.truncated()},
        "limits": result.limits,
        "enforced": result.enforced,
        "usage": {
            "wallMs": whole(usage.wall),
            "cpuUserMs": whole(usage.cpu_user),
            "cpuSystemMs": whole(usage.cpu_system),
            "maxRssBytes": usage.max_rss_bytes,
            "peakMemoryBytes": usage.peak_memory_bytes,
            "diskBytes": usage.disk_bytes,
        },
        "skipped": result.skipped,
    });
    let mut report = match report {
        Value::Object(report) => report,
        _ => Map::new(),
    };
    if let Some(told) = result.limit_told() {
        report.insert(LIMIT.to_owned(), told.into());
    }
    report
}
