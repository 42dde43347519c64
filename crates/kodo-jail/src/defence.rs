//! The defences that hold a job, by name. All of them are on; the feature `weaken`, which no release build can have, is
//! what a test takes one off by.

macro_rules! defences {
    ($($name:ident $word:literal $what:literal;)*) => {
        /// One of the things that hold a job.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(
            not(feature = "weaken"),
            expect(dead_code, unreachable_pub, reason = "named from outside, and some of them only, by a test that takes them off")
        )]
        pub enum Defence {
            $(#[doc = $what] $name,)*
        }

        #[cfg(feature = "weaken")]
        impl Defence {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

defences! {
    Descriptors "descriptors" "Every descriptor but the three standard ones is closed.";
    Lifeline "lifeline" "The job dies with the process that asked for it.";
    LeaveRoot "leave-root" "The job is not the machine's user 0, whatever it is inside.";
    PidNamespace "pid-namespace" "It sees no process but its own.";
    NetNamespace "net-namespace" "It has no network but a loopback of its own.";
    IpcNamespace "ipc-namespace" "It shares no memory segments and queues with the machine.";
    UtsNamespace "uts-namespace" "It does not see the machine's name.";
    CgroupNamespace "cgroup-namespace" "It does not see where in the machine's cgroups it is.";
    Root "root" "It has a file tree of its own, with the system's folders read-only in it.";
    Etc "etc" "Of /etc it sees only what every user of the machine may read.";
    Proc "proc" "/proc and /sys show its own processes and groups, and nothing else of the machine.";
    Terminals "terminals" "It has a few pseudoterminals of its own, and sees none of the machine.";
    DiskSize "disk-size" "Its files have a limit in bytes.";
    DiskInodes "disk-inodes" "Its files have a limit in number.";
    Session "session" "It has a session of its own, without a terminal.";
    Environment "environment" "It has the environment that it was given, and no other.";
    ResourceLimits "resource-limits" "Processes, open files, file sizes and core dumps are limited.";
    Capabilities "capabilities" "It has no capability, not even in its own user namespace.";
    NoNewPrivileges "no-new-privileges" "No program that it starts gains privileges.";
    Landlock "landlock" "The kernel's own access control restricts files, signals and abstract sockets once more.";
    Seccomp "seccomp" "It can make only the system calls of a list.";
    Undumpable "undumpable" "The jail's init process cannot be inspected by the job.";
    Deadline "deadline" "It ends when its time is over.";
    KillAll "kill-all" "Processes that it left running are killed.";
    NoFollow "no-follow" "Only regular files are handed back, and no link is followed.";
}

/// Whether a defence is on.
#[cfg(not(feature = "weaken"))]
pub(crate) const fn on(_: Defence) -> bool {
    true
}

#[cfg(feature = "weaken")]
pub(crate) use crate::weaken::on;
