//! What our side costs.

use std::time::{Duration, Instant};

use kodo_planner::LivePlanner;

use super::support::{ask, config, model};

#[tokio::test]
async fn our_side_of_a_call_costs_little_beside_any_model() {
    let model = model().await;
    let planner = LivePlanner::new(config(&model.url()));
    ask(&planner).await.unwrap();
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        ask(&planner).await.unwrap();
        took.push(started.elapsed());
    }
    took.sort();
    println!(
        "a call to a model that answers at once: p50 {:?}, p99 {:?}",
        took[50], took[99]
    );
    // A model takes seconds. The bound is generous, for a machine that is busy.
    assert!(took[50] < Duration::from_millis(250), "{:?}", took[50]);
}
