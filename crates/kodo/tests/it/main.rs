//! The integration tests: the real binary, real Postgres, real signals. One binary, a module an area.

// A test says that something cannot fail by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, dead_code)]

mod api;
mod artifacts;
mod artifacts_gc;
mod artifacts_lost;
#[path = "../../../kodo-artifacts/tests/shared/bucket.rs"]
mod bucket;
mod canonical_sql;
mod catalogue;
mod completion_bar;
mod crash_demo;
mod crash_lane;
mod crash_matrix;
mod crash_outage;
mod crash_points;
mod crash_scenes;
mod crash_seed;
mod db_commands;
mod demos;
mod doctor;
mod door;
mod drain;
mod environment;
mod evidence;
mod exact;
mod failed_runs;
mod flow;
mod golden_folder;
mod idempotency;
mod intents;
mod interrupted;
mod invalid_json;
mod limits;
mod live_planner;
mod live_sandbox;
mod neighbours;
mod oc_commands;
mod origin;
mod outage;
mod own_server;
mod program;
mod proof;
mod prove;
mod prove_red;
mod raw;
mod readiness;
mod recovery;
mod routes;
mod rows;
mod run_requests;
mod run_view;
mod schema_errors;
mod scratch;
mod statements;
mod storable;
mod support;
mod tap;
mod tasks;
mod token;
mod tool_calls;
mod verdicts;
mod workers;
mod workflow_commands;
