//! Which system calls a job can make: those of a list, with arguments where arguments matter.
//!
//! A call that is on no list fails with `ENOSYS`, as on an older kernel, so that libraries fall back to what they used
//! before; `clone3` is not on it because its flags are behind a pointer, which a filter cannot follow. A call that is
//! refused on purpose, or for its arguments, fails with `EPERM`. A call of another architecture kills the process.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use crate::sys;
use crate::wire::Fault;

/// The filters, ready to be applied. They are the same for every job, so they are built before there is one.
pub(crate) struct Filters {
    allowed: BpfProgram,
    refused: BpfProgram,
    /// Also refuses unnamed memory files.
    unnamed: BpfProgram,
    /// Also refuses what a debugger does to the processes that it started.
    tracing: BpfProgram,
}

/// What a job may do beyond the list that holds for all.
#[derive(Clone, Copy)]
pub(crate) struct Permitted {
    /// Memory that belongs to no process and to no bounded file system.
    pub(crate) unnamed_files: bool,
    /// Looking into, and changing, its own other processes.
    pub(crate) tracing: bool,
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

impl Filters {
    /// Builds all of them.
    pub(crate) fn build() -> Result<Self, Fault> {
        Self::try_build().map_err(Fault::at("seccomp"))
    }

    fn try_build() -> Result<Self, seccompiler::BackendError> {
        let arch: TargetArch = std::env::consts::ARCH.try_into()?;
        let compile = |rules: Rules, otherwise, matched| -> Result<BpfProgram, _> {
            SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()
        };
        let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
        let not_permitted = SeccompAction::Errno(libc::EPERM as u32);
        Ok(Self {
            allowed: compile(allowed()?, no_such_call, SeccompAction::Allow)?,
            refused: compile(refused()?, SeccompAction::Allow, not_permitted.clone())?,
            unnamed: compile(every(&UNNAMED), SeccompAction::Allow, not_permitted.clone())?,
            tracing: compile(every(&TRACING), SeccompAction::Allow, not_permitted)?,
        })
    }

    /// Applies them to this process, irrevocably. The kernel takes the strictest answer, and of two errors that of the filter
    /// that was applied later.
    pub(crate) fn apply(&self, permitted: Permitted) -> Result<(), Fault> {
        let unnamed = (!permitted.unnamed_files).then_some(&self.unnamed);
        let tracing = (!permitted.tracing).then_some(&self.tracing);
        let always = [&self.allowed, &self.refused];
        for filter in always.into_iter().chain(unnamed).chain(tracing) {
            apply_filter(filter).map_err(Fault::at("seccomp"))?;
        }
        Ok(())
    }
}

/// What a call fails with that no filter allows, and by which rule.
pub(crate) fn refusal(call: c_long) -> (i32, String) {
    let rules = REFUSED
        .iter()
        .copied()
        .chain([("older calls of this architecture", OLD)]);
    for (rule, calls) in rules {
        if let Some((_, name)) = calls.iter().find(|(number, _)| *number == call) {
            return (
                libc::EPERM,
                format!("{}: {rule}", name.trim_start_matches("SYS_")),
            );
        }
    }
    let told = match call {
        libc::SYS_socket => {
            "socket: other kinds of sockets than unix, inet, inet6 and netlink's routes"
        }
        libc::SYS_clone => "clone: namespaces",
        libc::SYS_ioctl => "ioctl: typing into a terminal, line disciplines",
        libc::SYS_personality => "personality: other than the usual one",
        libc::SYS_mknodat => "mknodat: devices",
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mknod => "mknod: devices",
        _ if TRACING.contains(&call) => "tracing processes: SBX_ALLOW_PTRACE permits it",
        _ if UNNAMED.contains(&call) => "memory that only a cgroup could count: SBX_CGROUP",
        _ => {
            return (
                libc::ENOSYS,
                format!("system call {call}: not on the list, as on an older kernel"),
            );
        }
    };
    (libc::EPERM, told.to_owned())
}

/// Calls that are allowed and that say what a job looks for: looked at while it is explained what it was refused.
pub(crate) const LOOKED_AT: &[c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_connect,
];

/// A filter in the place of all: it asks the listener that it comes with about every call that they refuse, and about
/// [`LOOKED_AT`].
pub(crate) fn explaining(permitted: Permitted) -> Result<OwnedFd, Fault> {
    let at = Fault::at("seccomp");
    let mut rules = allowed().map_err(&at)?;
    let unnamed = UNNAMED.iter().filter(|_| !permitted.unnamed_files);
    let tracing = TRACING.iter().filter(|_| !permitted.tracing);
    for call in unnamed.chain(tracing).chain(LOOKED_AT) {
        rules.remove(call);
    }
    let asked = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into().map_err(&at)?;
    let filter = SeccompFilter::new(rules, asked, SeccompAction::Allow, arch);
    let mut program: BpfProgram = filter.and_then(TryInto::try_into).map_err(&at)?;
    // The crate knows no such answer.
    let refusing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    for instruction in &mut program {
        if u32::from(instruction.code) == libc::BPF_RET | libc::BPF_K && instruction.k == refusing {
            instruction.k = libc::SECCOMP_RET_USER_NOTIF;
        }
    }
    let instructions = program.iter();
    let instructions = instructions
        .map(|it| (it.code, it.jt, it.jf, it.k))
        .collect();
    sys::filter_with_listener(instructions).map_err(Fault::at("seccomp"))
}

fn when(argument: u8, op: Op, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, Len::Dword, op, value)
}

/// Flags of `clone` that make namespaces. The one for time is among the bits of the exit signal, where `clone`
/// does not take it.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Kinds of sockets that a job may have. They all end in its own network namespace.
const FAMILIES: [i32; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

fn allowed() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    #[cfg(target_arch = "x86_64")]
    rules.extend(ALLOWED_X86_64.iter().map(|call| (*call, Vec::new())));
    let only = |conditions| SeccompRule::new(conditions);
    rules.insert(
        libc::SYS_clone,
        vec![only(vec![when(0, Op::MaskedEq(NAMESPACES), 0)?])?],
    );
    let mut sockets = Vec::new();
    for family in FAMILIES {
        let family = family as u64;
        let mut conditions = vec![when(0, Op::Eq, family)?];
        if family == libc::AF_NETLINK as u64 {
            // What lists interfaces and addresses; not what configures firewalls.
            conditions.push(when(2, Op::Eq, libc::NETLINK_ROUTE as u64)?);
        }
        sockets.push(only(conditions)?);
    }
    rules.insert(libc::SYS_socket, sockets);
    let mut requests = Vec::new();
    for request in REQUESTS {
        requests.push(when(1, Op::Ne, request)?);
    }
    rules.insert(libc::SYS_ioctl, vec![only(requests)?]);
    let mut personalities = Vec::new();
    for value in PERSONALITIES {
        personalities.push(only(vec![when(0, Op::Eq, value)?])?);
    }
    rules.insert(libc::SYS_personality, personalities);
    rules.extend(nodes(|kind| NODES.contains(&kind))?);
    Ok(rules)
}

/// What terminals are asked and a job must not ask: to put characters into a terminal's input as if they had been typed,
/// and to change its line discipline, by which the kernel loads drivers that no program here needs.
const REQUESTS: [u64; 3] = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCSETD];

/// The personality that everybody has, and the question which one it is.
const PERSONALITIES: [u64; 2] = [0, 0xffff_ffff];

/// Regular files, also by the number 0, fifos and sockets, but no devices.
const NODES: [u32; 4] = [0, libc::S_IFREG, libc::S_IFIFO, libc::S_IFSOCK];

/// Rules for the calls that make files of these kinds.
fn nodes(these: impl Fn(u32) -> bool) -> Result<Rules, seccompiler::BackendError> {
    let calls = [
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_mknod, 1),
        (libc::SYS_mknodat, 2),
    ];
    let kinds = (0..16).map(|number| number << 12);
    let kinds: Vec<u32> = kinds.filter(|kind| these(*kind)).collect();
    let mut rules = Rules::new();
    for (call, argument) in calls {
        let mask = Op::MaskedEq(libc::S_IFMT.into());
        let one =
            |kind: &u32| SeccompRule::new(vec![when(argument, mask.clone(), u64::from(*kind))?]);
        rules.insert(call, kinds.iter().map(one).collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

fn refused() -> Result<Rules, seccompiler::BackendError> {
    let named = REFUSED.iter().flat_map(|(_, calls)| *calls).chain(OLD);
    let mut rules: Rules = named.map(|(call, _)| (*call, Vec::new())).collect();
    // For these the first filter would say that there is no such call, which no program believes.
    let mut families = Vec::new();
    for family in FAMILIES {
        families.push(when(0, Op::Ne, family as u64)?);
    }
    let other_netlink = vec![
        when(0, Op::Eq, libc::AF_NETLINK as u64)?,
        when(2, Op::Ne, libc::NETLINK_ROUTE as u64)?,
    ];
    rules.insert(
        libc::SYS_socket,
        vec![
            SeccompRule::new(families)?,
            SeccompRule::new(other_netlink)?,
        ],
    );
    let mut namespaces = Vec::new();
    for bit in (0..32).map(|bit| 1_u64 << bit) {
        if NAMESPACES & bit != 0 {
            namespaces.push(SeccompRule::new(vec![when(0, Op::MaskedEq(bit), bit)?])?);
        }
    }
    rules.insert(libc::SYS_clone, namespaces);
    let mut requests = Vec::new();
    for request in REQUESTS {
        requests.push(SeccompRule::new(vec![when(1, Op::Eq, request)?])?);
    }
    rules.insert(libc::SYS_ioctl, requests);
    let mut others = Vec::new();
    for value in PERSONALITIES {
        others.push(when(0, Op::Ne, value)?);
    }
    rules.insert(libc::SYS_personality, vec![SeccompRule::new(others)?]);
    rules.extend(nodes(|kind| !NODES.contains(&kind))?);
    Ok(rules)
}

fn every(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// What makes memory that belongs to no process and to no bounded file system: only a cgroup could count it.
const UNNAMED: [c_long; 2] = [libc::SYS_memfd_create, libc::SYS_shmget];

/// What a debugger needs. The kernel lets a process trace only those of its own jail, and never the jail's init.
const TRACING: [c_long; 3] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
];

/// Calls with their names.
type Named = &'static [(c_long, &'static str)];

macro_rules! named {
    ($($call:ident),* $(,)?) => { &[$((libc::$call, stringify!($call))),*] };
}

/// What is refused on purpose, by what it reaches.
#[rustfmt::skip]
const REFUSED: &[(&str, Named)] = &[
    ("namespaces and mounts", named![
        SYS_unshare, SYS_setns, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount,
        SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_mount_setattr, SYS_name_to_handle_at,
        SYS_open_by_handle_at, SYS_fanotify_init, SYS_fanotify_mark, SYS_quotactl, SYS_swapon, SYS_swapoff, SYS_acct,
    ]),
    ("other processes", named![
        SYS_kcmp, SYS_pidfd_getfd, SYS_process_madvise, SYS_move_pages, SYS_migrate_pages,
    ]),
    ("the kernel's larger surfaces", named![
        SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
        SYS_keyctl, SYS_add_key, SYS_request_key, SYS_vmsplice, SYS_io_setup,
    ]),
    ("the machine itself", named![
        SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_reboot, SYS_settimeofday,
        SYS_clock_settime, SYS_clock_adjtime, SYS_adjtimex, SYS_syslog, SYS_vhangup, SYS_sethostname,
        SYS_setdomainname,
    ]),
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD: Named = named![
    SYS_iopl, SYS_ioperm, SYS_modify_ldt, SYS_kexec_file_load, SYS_uselib, SYS_ustat, SYS_sysfs,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: Named = &[];

/// What programs need: files, memory, processes, time, signals, sockets.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // files
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2,
    libc::SYS_openat, libc::SYS_openat2, libc::SYS_close, libc::SYS_close_range, libc::SYS_lseek,
    libc::SYS_fstat, libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_statfs, libc::SYS_fstatfs,
    libc::SYS_getdents64, libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_readlinkat,
    libc::SYS_mkdirat, libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_linkat,
    libc::SYS_symlinkat, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat,
    libc::SYS_utimensat, libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_fallocate, libc::SYS_fadvise64,
    libc::SYS_readahead, libc::SYS_sync, libc::SYS_syncfs, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_sync_file_range, libc::SYS_copy_file_range, libc::SYS_sendfile, libc::SYS_splice,
    libc::SYS_tee, libc::SYS_dup, libc::SYS_dup3, libc::SYS_fcntl, libc::SYS_flock, libc::SYS_pipe2,
    libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_umask, libc::SYS_getxattr,
    libc::SYS_lgetxattr, libc::SYS_fgetxattr, libc::SYS_listxattr, libc::SYS_llistxattr,
    libc::SYS_flistxattr, libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr,
    libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr, libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch, libc::SYS_memfd_create,
    // memory
    libc::SYS_brk, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect,
    libc::SYS_madvise, libc::SYS_msync, libc::SYS_mincore, libc::SYS_mlock, libc::SYS_mlock2,
    libc::SYS_munlock, libc::SYS_mlockall, libc::SYS_munlockall, libc::SYS_membarrier,
    libc::SYS_get_mempolicy, libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_pkey_mprotect,
    libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmdt, libc::SYS_shmctl,
    // processes and threads
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_wait4,
    libc::SYS_waitid, libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal, libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid, libc::SYS_getpgid,
    libc::SYS_setpgid, libc::SYS_getsid, libc::SYS_setsid, libc::SYS_set_tid_address,
    libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq, libc::SYS_futex,
    libc::SYS_futex_waitv, libc::SYS_prctl, libc::SYS_getpriority, libc::SYS_setpriority,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam, libc::SYS_sched_setparam, libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler, libc::SYS_sched_getattr, libc::SYS_sched_setattr,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min, libc::SYS_sched_rr_get_interval,
    libc::SYS_getrlimit, libc::SYS_setrlimit, libc::SYS_prlimit64, libc::SYS_getrusage, libc::SYS_times,
    libc::SYS_sysinfo, libc::SYS_uname, libc::SYS_getcpu, libc::SYS_ioprio_get, libc::SYS_ioprio_set,
    libc::SYS_seccomp, libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
    // unless the configuration permits them, another filter refuses these: `TRACING`
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    // who one is; what a job may not become, the kernel refuses by itself
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid,
    libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid,
    libc::SYS_setregid, libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setgroups,
    libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_capget, libc::SYS_capset,
    // signals and time
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn, libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_rt_sigsuspend, libc::SYS_sigaltstack, libc::SYS_signalfd4, libc::SYS_restart_syscall,
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_clock_gettime, libc::SYS_clock_getres,
    libc::SYS_gettimeofday, libc::SYS_getitimer, libc::SYS_setitimer, libc::SYS_timer_create,
    libc::SYS_timer_settime, libc::SYS_timer_gettime, libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    libc::SYS_timerfd_create, libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime,
    // waiting
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2,
    libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_eventfd2,
    // sockets
    libc::SYS_socketpair, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4,
    libc::SYS_connect, libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_sendto, libc::SYS_recvfrom,
    libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg, libc::SYS_recvmmsg, libc::SYS_setsockopt,
    libc::SYS_getsockopt, libc::SYS_shutdown,
    // messages and semaphores, in the job's own IPC namespace
    libc::SYS_semget, libc::SYS_semop, libc::SYS_semtimedop, libc::SYS_semctl, libc::SYS_msgget,
    libc::SYS_msgsnd, libc::SYS_msgrcv, libc::SYS_msgctl, libc::SYS_mq_open, libc::SYS_mq_unlink,
    libc::SYS_mq_timedsend, libc::SYS_mq_timedreceive, libc::SYS_mq_notify, libc::SYS_mq_getsetattr,
    libc::SYS_getrandom,
];

/// What exists on this architecture alone: mostly older forms of the above.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_X86_64: &[c_long] = &[
    libc::SYS_open, libc::SYS_creat, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access,
    libc::SYS_readlink, libc::SYS_getdents, libc::SYS_mkdir, libc::SYS_rmdir, libc::SYS_unlink,
    libc::SYS_rename, libc::SYS_link, libc::SYS_symlink, libc::SYS_chmod, libc::SYS_chown,
    libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes, libc::SYS_futimesat, libc::SYS_dup2,
    libc::SYS_pipe, libc::SYS_fork, libc::SYS_vfork, libc::SYS_getpgrp, libc::SYS_poll, libc::SYS_select,
    libc::SYS_epoll_create, libc::SYS_epoll_wait, libc::SYS_eventfd, libc::SYS_signalfd,
    libc::SYS_inotify_init, libc::SYS_alarm, libc::SYS_pause, libc::SYS_time, libc::SYS_arch_prctl,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        let refused: Vec<c_long> = refused().unwrap().into_keys().collect();
        let conditional: Vec<c_long> = allowed()
            .unwrap()
            .into_iter()
            .filter(|(_, rules)| !rules.is_empty())
            .map(|it| it.0)
            .collect();
        for call in &refused {
            assert!(!ALLOWED.contains(call), "{call}");
            let (errno, what) = refusal(*call);
            assert_eq!(errno, libc::EPERM, "{what}");
        }
        // Each call that is allowed by its arguments is refused by them too, and not unknown.
        assert!(conditional.iter().all(|call| refused.contains(call)));
        let mut seen = std::collections::BTreeSet::new();
        for call in ALLOWED
            .iter()
            .chain(REFUSED.iter().flat_map(|(_, calls)| *calls).map(|it| &it.0))
        {
            assert!(seen.insert(call), "{call} stands there twice");
        }
    }

    #[test]
    fn the_filters_compile_for_this_machine() {
        let filters = Filters::build().unwrap();
        for filter in [
            &filters.allowed,
            &filters.refused,
            &filters.unnamed,
            &filters.tracing,
        ] {
            // The kernel takes 4096 instructions in one program.
            assert!(filter.len() < 4096);
        }
    }
}
