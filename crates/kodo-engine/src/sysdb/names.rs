//! How the rows and locks of one product database are named in a system database, which several may share.

/// The application name of every workflow row. One product database is one application: another one's workflows
/// would find no runs here.
pub(crate) fn app_name(instance: &str) -> String {
    format!("sisu-kodo-{instance}")
}

/// The application version of every workflow row. It names the *shape* of our workflows, not the build, so that a new
/// build resumes the runs of an old one. A changed order of steps gets a new workflow name instead.
///
/// It contains the instance because the engine wants version names to be unique across the applications of a system
/// database.
pub(crate) fn app_version(instance: &str) -> String {
    format!("1-{instance}")
}

/// The executor id of a slot.
pub(crate) fn executor_id(slot: i32) -> String {
    format!("kodo-{slot}")
}

/// The slot of an executor id, or `None` if the id is not one of ours.
pub(crate) fn slot_of(executor_id: &str) -> Option<i32> {
    executor_id.strip_prefix("kodo-")?.parse().ok()
}

/// The first key of every advisory lock of a product database.
pub(crate) fn lock_class(instance: &str) -> i32 {
    // Eight hexadecimal digits are exactly 32 bits; anything else is no instance that a migration made.
    let bits = u32::from_str_radix(instance, 16).unwrap_or_default();
    i32::from_ne_bytes(bits.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instance_has_a_lock_class_of_its_own() {
        assert_eq!(lock_class("0000002a"), 42);
        assert_eq!(lock_class("ffffffff"), -1);
        assert_ne!(lock_class("80000000"), lock_class("00000000"));
    }

    #[test]
    fn only_our_executor_ids_name_slots() {
        assert_eq!(slot_of(&executor_id(7)), Some(7));
        assert_eq!(slot_of("local"), None);
        assert_eq!(slot_of("kodo-"), None);
        assert_eq!(slot_of("kodo-x"), None);
    }
}
