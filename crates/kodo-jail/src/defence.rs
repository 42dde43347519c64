//! What holds a job, by name, so that a test can take one away and see that it mattered.

use std::fmt;

macro_rules! defences {
    ($($name:ident $word:literal $what:literal;)*) => {
        /// One of the things that hold a job.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defence {
            $(#[doc = $what] $name,)*
        }

        impl Defence {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What it does.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

defences! {
    Descriptors "descriptors" "Every descriptor but the three standard ones is closed.";
    Lifeline "lifeline" "The job dies with whoever asked for it.";
    LeaveRoot "leave-root" "The job is not the machine's user 0, whatever it is inside.";
    PidNamespace "pid-namespace" "It sees no process but its own.";
    NetNamespace "net-namespace" "It has no network but a loopback of its own.";
    IpcNamespace "ipc-namespace" "It shares no memory segments and queues with the machine.";
    UtsNamespace "uts-namespace" "It does not see the machine's name.";
    CgroupNamespace "cgroup-namespace" "It does not see where in the machine's groups it is.";
    Root "root" "It has a file tree of its own, with the system's folders read-only in it.";
    Proc "proc" "/proc shows its own processes and nothing of the machine.";
    DiskSize "disk-size" "Its files have a bound in bytes.";
    DiskInodes "disk-inodes" "Its files have a bound in number.";
    Session "session" "It has a session of its own, without a terminal.";
    Environment "environment" "It has the environment that it was given, and no other.";
    ResourceLimits "resource-limits" "Processes, open files, file sizes and core dumps are bounded.";
    Capabilities "capabilities" "It has no capability, not even in its own user namespace.";
    NoNewPrivileges "no-new-privileges" "No program that it starts gains rights.";
    Landlock "landlock" "The kernel's own access control bounds files, signals and abstract sockets once more.";
    Seccomp "seccomp" "It can make only the system calls of a list.";
    Undumpable "undumpable" "The jail's first process cannot be looked into.";
    Deadline "deadline" "It ends when its time is over.";
    KillAll "kill-all" "What it left running is killed.";
    NoFollow "no-follow" "Only regular files are handed back, and no link is followed.";
}

impl fmt::Display for Defence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose kernel a job makes its system calls to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The machine's.
    Machine,
    /// gVisor's, which is a process of the machine: what namespaces, a file tree and Landlock are outside of it, the
    /// sandbox is in there.
    Sentry,
}

/// Which of them hold. In the product: all.
#[derive(Clone, Debug)]
pub(crate) struct Defences {
    without: Vec<Defence>,
    kernel: Kernel,
}

impl Defences {
    /// All of them.
    pub(crate) const ALL: Self = Self {
        without: Vec::new(),
        kernel: Kernel::Machine,
    };

    /// All that there are inside gVisor.
    pub(crate) const IN_SENTRY: Self = Self {
        without: Vec::new(),
        kernel: Kernel::Sentry,
    };

    /// All but some, for tests that prove that a probe can fail.
    pub(crate) fn without(without: Vec<Defence>) -> Self {
        Self {
            without,
            kernel: Kernel::Machine,
        }
    }

    pub(crate) fn in_sentry(&self) -> bool {
        self.kernel == Kernel::Sentry
    }

    pub(crate) fn on(&self, defence: Defence) -> bool {
        !self.without.contains(&defence)
    }
}
