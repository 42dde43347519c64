//! One look: a snapshot of the product database, and one of the engine's rows a moment later.
//!
//! In this order because the engine's outcome is committed before the run's status: a run that has ended in the first
//! snapshot has an ended workflow in the second, however busy the service. Everything else is looked at again.

use std::time::Instant;

use kodo_engine::{EngineRows, EngineTable};
use kodo_store::{Evidence, Invariant, SchemaError, StoreError};

use super::Proof;
use super::suspects::Suspects;
use crate::settings::Settings;

/// Looks at both databases.
pub(super) struct Prover<'a> {
    settings: &'a Settings,
    evidence: Evidence,
    instance: String,
    warning: Option<String>,
}

impl<'a> Prover<'a> {
    /// Connects to the product database and sees that it can be asked.
    pub(super) async fn connect(
        settings: &'a Settings,
        newest: Option<i64>,
    ) -> anyhow::Result<Self> {
        let mut evidence = Evidence::connect(&settings.app, newest).await?;
        let differences = settings.app.schema_errors().await?;
        // What can be read is judged by the invariants.
        if let Some(error) = differences.into_iter().find(SchemaError::is_unreadable) {
            return Err(StoreError::Schema(error).into());
        }
        let instance = evidence.instance().await?;
        Ok(Self {
            settings,
            evidence,
            instance,
            warning: None,
        })
    }

    /// The first look.
    pub(super) async fn first(&mut self, newest: Option<i64>) -> anyhow::Result<Proof> {
        let begun = Instant::now();
        let workers = self.begin().await?;
        let had = Instant::now();
        let runs = self.evidence.runs_by_status().await?;
        let mut found = Vec::new();
        for invariant in self.evidence.invariants().await? {
            let mut suspects = Suspects::new(had);
            self.look(&invariant, &mut suspects, begun).await?;
            found.push((invariant, suspects));
        }
        self.evidence.end().await?;
        Ok(Proof {
            instance: self.instance.clone(),
            newest,
            product: self.settings.app.database.clone(),
            system: self.settings.system.database.clone(),
            place: self.settings.app.address(),
            workers,
            runs: runs.into_iter().collect(),
            warning: self.warning.take(),
            found,
        })
    }

    /// Another look, at what is not decided.
    pub(super) async fn again(&mut self, proof: &mut Proof) -> anyhow::Result<()> {
        let begun = Instant::now();
        proof.workers = self.begin().await?;
        let open = proof.found.iter_mut().filter(|(_, rows)| !rows.judged());
        for (invariant, suspects) in open {
            self.look(invariant, suspects, begun).await?;
        }
        Ok(self.evidence.end().await?)
    }

    /// Closes the session.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        Ok(self.evidence.close().await?)
    }

    /// Fixes the moment and carries the engine's rows over. Returns the workers that live.
    async fn begin(&mut self) -> anyhow::Result<Vec<String>> {
        self.evidence.begin().await?;
        let mut engine = EngineRows::connect(
            &self.settings.system,
            &self.instance,
            self.evidence.first_run(),
        )
        .await?;
        for table in EngineTable::ALL {
            let mut rows = engine.read(table).await?;
            let mut load = self.evidence.load(table.table()).await?;
            while let Some(some) = rows.next().await? {
                load.send(&some).await?;
            }
            load.finish().await?;
        }
        self.warning = engine.schema().await?.warning();
        let workers = engine.workers().await?;
        engine.close().await?;
        Ok(workers)
    }

    async fn look(
        &mut self,
        invariant: &Invariant,
        suspects: &mut Suspects,
        begun: Instant,
    ) -> Result<(), StoreError> {
        let mut look = suspects.look(begun);
        self.evidence
            .offenders(invariant, |row| look.sees(row))
            .await?;
        look.end();
        Ok(())
    }
}
