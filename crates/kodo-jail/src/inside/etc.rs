//! Which of the machine's files in `/etc` a job sees: those that programs read and that hold no secrets.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files and folders of the machine's `/etc`; a `*` stands for a part of a name. Of these, a job sees what every user of
/// the machine may read. What administrators put passwords into stands here only in part: no `ssl/private`, no
/// `maven/settings.xml`, no settings of PHP's servers, of package managers, of git, of databases.
const SHOWN: &[&str] = &[
    // the dynamic linker, and Debian's alternatives
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "alternatives",
    // names, numbers, time, languages
    "localtime",
    "timezone",
    "services",
    "protocols",
    "rpc",
    "networks",
    "host.conf",
    "gai.conf",
    "mime.types",
    "magic",
    "magic.mime",
    "locale.alias",
    "locale.conf",
    "default/locale",
    "os-release",
    "debian_version",
    "redhat-release",
    "alpine-release",
    "lsb-release",
    "shells",
    "login.defs",
    // terminals and shells
    "terminfo",
    "inputrc",
    "bash.bashrc",
    "profile",
    "nanorc",
    "vim",
    // certificates of authorities, and what may be done with which algorithm
    "ssl/certs",
    "ssl/openssl.cnf",
    "ca-certificates",
    "ca-certificates.conf",
    "pki/tls/certs",
    "pki/tls/cert.pem",
    "pki/tls/openssl.cnf",
    "pki/ca-trust/extracted",
    "crypto-policies",
    "gnutls",
    "gcrypt",
    // languages
    "java",
    "java-*",
    "maven/m2.conf",
    "maven/logging",
    "ant",
    "php/*/cli",
    "php/*/mods-available",
    "php.d",
    "perl",
    "python3",
    "python3.*",
    "xml",
    "sgml",
    "texmf",
    "R",
    "julia",
    "erlang",
    "emacs",
    // fonts, pictures, browsers
    "fonts",
    "ImageMagick-*",
    "papersize",
    "libpaper.d",
    "glvnd",
    "vulkan",
    "OpenCL",
    "drirc",
    "libva.conf",
    "chromium.d",
    "chromium/initial_preferences",
];

/// Those that this machine has and every user may read, without a slash at the end, in the order of the list.
pub(super) fn shown() -> Vec<PathBuf> {
    SHOWN
        .iter()
        .flat_map(|pattern| matching(Path::new("/etc"), pattern))
        .filter(|path| fs::canonicalize(path).is_ok_and(|it| everybody_reaches(&it)))
        .collect()
}

/// Whether every user may read a file or folder and enter the folders that lead to it. The service may read more: what is its own, or
/// one of its groups'. `path` has no links in it.
fn everybody_reaches(path: &Path) -> bool {
    let above = path.ancestors().skip(1).filter(|it| it.parent().is_some());
    everybody_reads(path)
        && above
            .into_iter()
            .all(|it| fs::metadata(it).is_ok_and(|it| it.mode() & 0o001 != 0))
}

/// Whether every user may read a file, or read and enter a folder.
fn everybody_reads(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| {
        let needed = if it.is_dir() { 0o005 } else { 0o004 };
        it.mode() & needed == needed
    })
}

/// The files and folders in a shown folder that not every user may read, and whether each is a folder. Links are followed by
/// nobody here: what a job finds at their other end is shown or covered there.
pub(super) fn private(folder: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_symlink() {
                continue;
            }
            if !everybody_reads(&path) {
                found.push((path, kind.is_dir()));
            } else if kind.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

/// The paths below `folder` that match a pattern, sorted.
fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let (first, rest) = match pattern.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (pattern, None),
    };
    let found = match first.split_once('*') {
        None => vec![folder.join(first)],
        Some((begin, end)) => {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.filter_map(|it| it.file_name().into_string().ok());
            let fits = |name: &String| name.strip_prefix(begin).is_some_and(|it| it.ends_with(end));
            let mut found: Vec<_> = names.filter(fits).map(|it| folder.join(it)).collect();
            found.sort();
            found
        }
    };
    let exists = found.into_iter().filter(|it| it.exists());
    match rest {
        None => exists.collect(),
        Some(rest) => exists.flat_map(|it| matching(&it, rest)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_a_part_of_a_name_and_for_no_folder() {
        let root = tempfile::tempdir().unwrap();
        for name in [
            "java-8-x/a",
            "java-17-x/a",
            "php/8.2/cli/a",
            "php/8.2/fpm/a",
            "javac",
        ] {
            let place = root.path().join(name);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, "").unwrap();
        }
        let found = |pattern| -> Vec<String> {
            let paths = matching(root.path(), pattern);
            let names = paths.iter().map(|it| it.strip_prefix(root.path()).unwrap());
            names.map(|it| it.display().to_string()).collect()
        };
        assert_eq!(found("java-*"), ["java-17-x", "java-8-x"]);
        assert_eq!(found("php/*/cli"), ["php/8.2/cli"]);
        assert_eq!(found("*/a"), ["java-17-x/a", "java-8-x/a"]);
        assert!(found("php/*").iter().all(|it| it == "php/8.2"));
        assert!(found("nothing").is_empty() && found("java*/nothing").is_empty());
    }

    #[test]
    fn what_not_every_user_may_read_is_private_in_whichever_folder() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let place = root.path().join(name);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            if name.ends_with('/') {
                fs::create_dir_all(&place).unwrap();
            } else {
                fs::write(&place, "").unwrap();
            }
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        };
        make("open", 0o644);
        make("own", 0o600);
        make("a/b/groups", 0o640);
        make("a/b/open", 0o604);
        make("entered/", 0o711);
        make("listed/", 0o754);
        make("closed/open", 0o644);
        make("closed/", 0o750);
        for folder in ["a/", "a/b/"] {
            make(folder, 0o755);
        }
        std::os::unix::fs::symlink("own", root.path().join("link")).unwrap();
        let mut found = private(root.path()).unwrap();
        found.sort();
        let expected = [
            ("a/b/groups", false),
            ("closed", true),
            ("entered", true),
            ("listed", true),
            ("own", false),
        ];
        assert_eq!(
            found,
            expected.map(|(name, is_dir)| (root.path().join(name), is_dir))
        );
        assert!(!everybody_reaches(&root.path().join("closed/open")));
    }

    #[test]
    fn nothing_is_shown_that_is_made_for_secrets() {
        for path in shown() {
            let path = path.display().to_string();
            for secret in ["shadow", "private", "ssh", "settings.xml", "sudoers", "fpm"] {
                assert!(!path.contains(secret), "{path}");
            }
        }
    }
}
