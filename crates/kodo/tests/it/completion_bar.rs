//! `kodo prove --demo`: the claims of a page, tried and reported, in a checkout that has nothing but that page.

use std::path::Path;
use std::process::{Output, Stdio};

use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{kodo_dev, program};

/// A folder that looks like a checkout, with this page as its course.
fn checkout(page: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for below in ["bin", "docs", "crates/deep"] {
        std::fs::create_dir_all(folder.path().join(below)).unwrap();
    }
    std::fs::write(folder.path().join("bin/mise"), "").unwrap();
    std::fs::write(folder.path().join("docs/course.md"), page).unwrap();
    folder
}

async fn prove_demo(folder: &Path) -> Output {
    Command::new(program())
        .args(["prove", "--demo"])
        .env("KODO_DEV", kodo_dev())
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn each_claim_is_told_with_its_evidence_also_after_one_that_does_not_hold() {
    let folder = checkout(
        "# Course\n## Other\n```bash run\nfalse\n```\n## Completion bar\n### The first holds\n\
         ```bash run evidence=\"status\"\necho \"[wf:x] status: SUCCESS\"\necho done\n```\n\
         ### The second does not\n```bash run\necho one\n```\n```text output\ntwo\n```\n\
         ### The third holds\n```bash run\necho third\n```\n",
    );
    let output = prove_demo(&folder.path().join("crates/deep")).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for text in [
        "1. The first holds",
        "s: status: SUCCESS",
        "2. The second does not",
        "docs/course.md:17: printed something else",
        "- two",
        "+ one",
        "3. The third holds",
        "s: third",
        "Verdict: claim 2 of 3 does not hold",
    ] {
        assert!(said.contains(text), "{text} in {said}");
    }
}

#[tokio::test]
async fn a_bar_that_holds_may_be_shown() {
    let folder = checkout("# Course\n## Completion bar\n### It holds\n```bash run\ntrue\n```\n");
    let output = prove_demo(folder.path()).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("Verdict: all 1 claims hold"), "{said}");
}

#[tokio::test]
async fn outside_of_a_checkout_it_says_that_it_needs_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = prove_demo(folder.path()).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("is not inside a checkout of the repository"),
        "{said}"
    );
}
