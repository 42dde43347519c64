//! Files that a job finds and leaves.

use kodo_contract::sha256_hex;

use super::{run, shell};
use crate::{InputFile, Sandbox, result_of};

pub async fn files_are_there_before_the_program_is(sandbox: &dyn Sandbox) {
    let mut job = shell("cat a.txt deep/er/b.txt; ./run; ls -A").file("a.txt", "one\n");
    job = job.file("deep/er/b.txt", "two\n");
    job.files.push(InputFile {
        executable: true,
        ..InputFile::new("run", "#!/bin/sh\necho three\n")
    });
    // More than any pipe or socket holds.
    job = job.file("large", vec![b'x'; 3 << 20]);
    let result = run(sandbox, &job).await;
    assert_eq!(
        result.stdout.text(),
        "one\ntwo\nthree\na.txt\ndeep\nlarge\nrun\n"
    );
    assert!(result.files.is_empty(), "nothing has changed");
}

pub async fn files_that_are_new_or_changed_come_back(sandbox: &dyn Sandbox) {
    let job = shell("echo more >> grown; mkdir d; printf x > d/new; chmod +x d/new; rm gone")
        .file("same", "s")
        .file("grown", "g\n")
        .file("gone", "");
    let result = run(sandbox, &job).await;
    let names: Vec<_> = result.files.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["d/new", "grown"]);
    assert_eq!(result.files[1].content, b"g\nmore\n");
    assert_eq!(result.files[1].sha256, sha256_hex(b"g\nmore\n"));
    assert!(result.files[0].executable && !result.files[1].executable);
    let large = run(sandbox, &shell("head -c 3000000 /dev/zero > zeros")).await;
    assert_eq!(large.files[0].content.len(), 3_000_000);
    let tool = result_of(&large);
    assert_eq!(tool.files[0].size, Some(3_000_000));
    assert_eq!(tool.files[0].encoding.as_deref(), Some("base64"));
}

pub async fn only_regular_files_come_back(sandbox: &dyn Sandbox) {
    let script = "echo x > real; ln -s /etc/passwd absolute; ln -s real relative; ln -s .. folder; \
                  mkfifo fifo; ln real hard; echo y > \"$(printf 'a\\nb')\"; \
                  echo z > \"$(printf 'no\\377text')\"; mkdir empty";
    let result = run(sandbox, &shell(script)).await;
    let names: Vec<_> = result.files.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["a\nb", "hard", "real"]);
    let mut skipped: Vec<_> = result
        .skipped
        .iter()
        .map(|it| format!("{} {}", it.kind, it.name))
        .collect();
    skipped.sort();
    assert_eq!(
        skipped,
        [
            "fifo fifo",
            "name no\u{fffd}text",
            "symlink absolute",
            "symlink folder",
            "symlink relative"
        ]
    );
}
