//! `kodo artifacts list`.

use std::process::ExitCode;

use kodo_contract::RunId;
use kodo_store::ArtifactRow;
use kodo_store::content::content_of;
use serde::Serialize;

use super::Artifacts;
use crate::cli::Format;
use crate::commands::NOT_FOUND;
use crate::output;
use crate::table;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    step_id: String,
    index: i32,
    kind: String,
    name: Option<String>,
    media_type: String,
    size: u64,
    sha256: String,
    stored: bool,
}

impl Entry {
    fn of(row: ArtifactRow) -> Self {
        let (media_type, size, sha256, name) = match &row.stored {
            Some((size, media_type)) => {
                let name = row.inline["name"].as_str().map(str::to_owned);
                (media_type.clone(), *size, row.sha256.clone(), name)
            }
            None => {
                let content = content_of(&row.kind, &row.inline);
                let size = content.bytes.len() as u64;
                let hash = content.sha256.into_string();
                (content.media_type.to_owned(), size, hash, content.name)
            }
        };
        Self {
            step_id: row.step_id,
            index: row.index,
            kind: row.kind,
            name,
            media_type,
            size,
            sha256,
            stored: row.stored.is_some(),
        }
    }
}

pub(super) async fn run(
    artifacts: &Artifacts,
    run: &str,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let rows = match RunId::parse(run) {
        Some(run) => artifacts.rows.artifacts_of(&run).await?,
        None => None,
    };
    let Some(rows) = rows else {
        output::tell(format_args!("kodo: there is no run {run}"));
        return Ok(ExitCode::from(NOT_FOUND));
    };
    let entries: Vec<Entry> = rows.into_iter().map(Entry::of).collect();
    let text = match format {
        Format::Json => output::json(&entries),
        Format::Table => {
            let rows: Vec<Vec<String>> = entries.into_iter().map(cells).collect();
            table::render(&["STEP", "KIND", "NAME", "SIZE", "WHERE", "SHA256"], &rows)
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn cells(entry: Entry) -> Vec<String> {
    let place = if entry.stored { "store" } else { "row" };
    vec![
        entry.step_id,
        entry.kind,
        // A name is what a program chose: it must not draw on the terminal.
        entry
            .name
            .map_or_else(|| "-".to_owned(), |name| name.escape_debug().to_string()),
        entry.size.to_string(),
        place.to_owned(),
        entry.sha256,
    ]
}
