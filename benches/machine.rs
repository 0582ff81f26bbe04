//! What Linux says about processes and the machine: CPU time, memory, conditions of the run.

use std::fs;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, page_cache};

/// Ticks per second of `/proc`: `USER_HZ`, 100 on every Linux that Rust targets.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds a process has used, user and kernel time, its ended threads included.
///
/// # Errors
/// The process is gone.
pub fn cpu_seconds(pid: u32) -> Outcome<f64> {
    // user and system
    times(&format!("/proc/{pid}/stat"), 11..13)
}

/// CPU seconds of this process and of the children that it waited for: the brokers that have ended.
///
/// # Errors
/// `/proc` is not there.
pub fn family_cpu_seconds() -> Outcome<f64> {
    times("/proc/self/stat", 11..15)
}

fn times(stat: &str, fields: Range<usize>) -> Outcome<f64> {
    let stat = fs::read_to_string(stat)?;
    // the name may hold spaces and brackets; what follows the last one is fields 3 and on
    let all: Vec<&str> = stat.rsplit_once(')').ok_or("no name in stat")?.1.split_whitespace().collect();
    let mut ticks = 0;
    for field in all.get(fields).ok_or("no times in stat")? {
        ticks += field.parse::<u64>()?;
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// CPU seconds of this process.
///
/// # Errors
/// `/proc` is not there.
pub fn own_cpu_seconds() -> Outcome<f64> {
    cpu_seconds(std::process::id())
}

/// CPU seconds that the whole machine was not idle, time stolen by its host included.
///
/// # Errors
/// `/proc` is not there.
pub fn busy_seconds() -> Outcome<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().ok_or("no line in /proc/stat")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|text| text.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy: u64 =
        ticks.iter().take(8).enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, value)| value).sum();
    Ok(busy as f64 / TICKS_PER_SECOND)
}

/// Resident memory in bytes: now (`VmRSS`) or the most since the start (`VmHWM`).
///
/// # Errors
/// The process is gone.
pub fn memory_bytes(pid: u32, field: &str) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field in status")?;
    let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

/// Bytes that a process has moved since its start.
#[derive(Clone, Copy, Debug)]
pub struct Io {
    /// Read by its calls, from the device or from the system's memory.
    pub read: u64,
    /// Read from the device for it.
    pub from_device: u64,
    /// That it has caused to be written to the device, less what was deleted before it got there.
    pub written: u64,
}

/// What the kernel counts of a process's reads and writes.
///
/// # Errors
/// The process is gone, or belongs to somebody else.
pub fn io(pid: u32) -> Outcome<Io> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |name: &str| -> Outcome<u64> {
        let line = io.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field in io")?;
        Ok(line.trim().parse()?)
    };
    let written = field("write_bytes:")?.saturating_sub(field("cancelled_write_bytes:")?);
    Ok(Io { read: field("rchar:")?, from_device: field("read_bytes:")?, written })
}

/// Has the system forget what it has in memory of the files below a folder; what is not on the device yet stays.
///
/// # Errors
/// A folder cannot be listed.
pub fn forget(folder: &Path) -> Outcome<()> {
    for path in files(folder)? {
        // a file may be gone since it was listed
        if let Ok(file) = fs::File::open(path) {
            not_needed(&file);
        }
    }
    Ok(())
}

#[allow(unsafe_code, reason = "std has no call for it")]
fn not_needed(file: &fs::File) {
    // SAFETY: the descriptor is open as long as the borrow is; the call changes no memory of this process.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Has the allocator keep what is freed: a client whose queue grows and shrinks with each pause of a broker would ask the system for pages
/// again and again, on the cores that the broker needs to catch up. To be called before other threads run.
#[allow(unsafe_code, reason = "std has no call for it")]
pub fn keep_memory() {
    // what is larger than the second is not kept, which is the allocator's own limit
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_TRIM_THRESHOLD, i32::MAX), (libc::M_MMAP_THRESHOLD, 32 << 20)] {
        // SAFETY: sets a number inside the allocator; it is documented for use at the start of main.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Open descriptors of a process.
///
/// # Errors
/// The process is gone, or belongs to somebody else.
pub fn descriptors(pid: u32) -> Outcome<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// What lies below a folder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    /// Files.
    pub files: usize,
    /// Blocks that they have on the disk, in bytes; holes are none.
    pub bytes: u64,
}

/// Counts the files below a folder that may change meanwhile.
///
/// # Errors
/// What the file system says of the folder itself.
pub fn stored(folder: &Path) -> Outcome<Stored> {
    let mut sum = Stored::default();
    // a file may be gone since it was listed
    for about in files(folder)?.into_iter().filter_map(|path| fs::symlink_metadata(path).ok()) {
        sum.files += 1;
        // the unit of `st_blocks` is 512 bytes whatever the file system's is
        sum.bytes += about.blocks() * 512;
    }
    Ok(sum)
}

fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            // one may be gone since its folder was opened
            let Ok(entry) = entry else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    Ok(found)
}

/// Everything that is dirty goes to the disk.
///
/// # Errors
/// `sync` cannot be run.
pub fn flush_disks() -> Outcome<()> {
    Command::new("sync").status()?;
    Ok(())
}

/// The same, and the page cache is filled, so that one cell does not pay for another.
///
/// # Errors
/// `sync` cannot be run, or no file for the page cache can be made.
pub fn settle() -> Outcome<()> {
    flush_disks()?;
    page_cache::fill()
}

/// Memory that nobody uses, in bytes.
///
/// # Errors
/// `/proc` is not there.
pub fn free_bytes() -> Outcome<u64> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemFree:")).ok_or("no MemFree in meminfo")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
}

/// First line of a command's output, or why there is none.
pub fn first_line(command: &str, args: &[&str]) -> String {
    match Command::new(command).args(args).output() {
        Ok(output) => {
            let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned()
        }
        Err(_) => format!("unknown ({command} cannot be run)"),
    }
}

/// The processor, its cores and the memory.
pub fn hardware() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("0 kB");
    let gib = kib.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0) / f64::from(1 << 20);
    format!("{}, {cores} cores, {gib:.0} GiB", model.trim_start_matches([' ', '\t', ':']))
}
