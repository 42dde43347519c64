//! This build and others in alternating rounds: each figure as a ratio.
//!
//! A machine that does other things as well is slower for all sides of a round alike, so a ratio is taken within each round,
//! and the median of the rounds is told with the lowest and the highest. The sides take turns in going first.

use anyhow::{Context, bail};
use serde_json::json;

use crate::figure::{FIGURES, Figure, Quantities};
use crate::figures::{Figures, rounded, say};
use crate::side::Side;

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
enum Aim {
    AtLeast(f64),
    AtMost(f64),
}
use Aim::{AtLeast, AtMost};

/// What is aimed at: figure, quantity, the side that this build is compared with.
const AIMS: &[(&str, &str, &str, Aim)] = &[
    ("runs1", "runsPerSecond", "before", AtLeast(1.3)),
    ("runs16", "runsPerSecond", "before", AtLeast(2.0)),
    ("runs16", "p50Ms", "before", AtMost(1.0 / 3.0)),
    ("runs16", "p99Ms", "before", AtMost(1.0 / 3.0)),
    ("runs16", "cpuMsPerRun", "before", AtMost(0.4)),
    ("runs64", "runsPerSecond", "before", AtLeast(3.5)),
    ("wait16", "runsPerSecond", "before", AtLeast(3.0)),
    ("wait64", "runsPerSecond", "before", AtLeast(5.0)),
    ("burst", "runsPerSecond", "before", AtLeast(3.0)),
    ("share16", "runsPerSecond", "pgbench", AtLeast(0.4)),
    ("share64", "runsPerSecond", "pgbench", AtLeast(0.6)),
    ("get", "requestsPerSecond", "before", AtLeast(3.0)),
    ("intents", "requestsPerSecond", "before", AtLeast(2.0)),
    ("memory", "idleMegabytes", "before", AtMost(1.0)),
    ("memory", "loadedMegabytes", "before", AtMost(1.5)),
    ("recover500", "seconds", "before", AtMost(1.0 / 3.0)),
    ("recover5000", "seconds", "before", AtMost(1.0 / 3.0)),
];

/// The figures of these names; all that any of the sides takes part in, where there is no name.
pub(crate) fn figures_named(names: &[String]) -> anyhow::Result<Vec<(&'static str, Figure)>> {
    let known = |name: &&String| FIGURES.iter().any(|(known, _)| known == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<&str> = FIGURES.iter().map(|(name, _)| *name).collect();
        bail!("no figure {unknown:?}; there are {}", all.join(", "));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wish| wish == name);
    Ok(FIGURES
        .iter()
        .filter(|(name, _)| wanted(name))
        .copied()
        .collect())
}

/// Measures figures of all sides, of which the first is this build.
pub(crate) async fn measure(
    sides: &[Side],
    wanted: &[(&'static str, Figure)],
    rounds: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    for (name, figure) in wanted {
        let sides: Vec<&Side> = sides.iter().filter(|side| figure.fits(side)).collect();
        if sides.len() < 2 {
            continue;
        }
        let mut shown: Vec<Vec<Quantities>> = vec![Vec::new(); sides.len()];
        for round in 1..=rounds {
            let mut order: Vec<usize> = (0..sides.len()).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for index in order {
                let side = sides[index];
                say(&format!(
                    "{name} of {}, round {round} of {rounds}",
                    side.name
                ));
                let quantities = figure.measure(side).await;
                shown[index].push(quantities.with_context(|| format!("{name} of {}", side.name))?);
            }
        }
        for (side, theirs) in sides.iter().zip(&shown).skip(1) {
            compare(name, side.name, &shown[0], theirs, figures)?;
        }
    }
    Ok(())
}

/// Prints a line for each quantity that both sides have.
fn compare(
    figure: &str,
    side: &str,
    ours: &[Quantities],
    theirs: &[Quantities],
    figures: &mut Figures,
) -> anyhow::Result<()> {
    for quantity in ours[0].keys() {
        let of = |rounds: &[Quantities]| -> Option<Vec<f64>> {
            rounds
                .iter()
                .map(|round| round.get(quantity).copied())
                .collect()
        };
        let (Some(ours), Some(theirs)) = (of(ours), of(theirs)) else {
            continue;
        };
        let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs);
        let (lowest, ratio, highest) = spread(ratios.collect());
        figures.print(&json!({
            "figure": figure,
            "quantity": quantity,
            "rounds": ours.len(),
            "ours": rounded(spread(ours).1),
            side: rounded(spread(theirs).1),
            "ratio": rounded(ratio),
            "lowestRatio": rounded(lowest),
            "highestRatio": rounded(highest),
        }))?;
        let aimed =
            |aim: &&(&str, &str, &str, Aim)| (aim.0, aim.1, aim.2) == (figure, *quantity, side);
        if let Some((.., aim)) = AIMS.iter().find(aimed) {
            let (word, bound, met) = match *aim {
                AtLeast(bound) => ("at least", bound, ratio >= bound),
                AtMost(bound) => ("at most", bound, ratio <= bound),
            };
            let what = format!("{figure}, {quantity}: {word} {bound:.2} times {side}");
            figures.aim(
                &what,
                format!("{ratio:.2} ({lowest:.2} to {highest:.2})"),
                met,
            );
        }
    }
    Ok(())
}

/// The lowest, the median and the highest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let median = match values.len() % 2 {
        1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    };
    (values[0], median, values[values.len() - 1])
}
